#include "guard/server.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <sstream>

#include "base/ensure.hpp"
#include "base/log.hpp"
#include "sys/process/clock.hpp"

namespace hf::guard {
namespace {
constexpr Duration kRetryAfter = 50ms;
constexpr int kMissedHeartbeats = 3;

Result<std::string> slurp(const std::string& path) {
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  if (!in) return from_errno("Cannot read " + path, errno);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}
}  // namespace

GuardServer::GuardServer(Config config)
    : config_(std::move(config)),
      guard_(ha::GuardTiming{config_.freeze_after, config_.alone}),
      incarnation_(fmt::format("{}-{}", ::getpid(), sys::boot_now().time_since_epoch().count())) {}

GuardServer::~GuardServer() {
  for (const auto& [fd, client] : clients_) ::close(fd);
  for (int fd : {lock_fd_, listen_fd_, epoll_fd_, timer_fd_, signal_fd_}) {
    if (fd >= 0) ::close(fd);
  }
}

Status GuardServer::open() {
  TRY(take_lock());
  epoll_fd_ = ::epoll_create1(EPOLL_CLOEXEC);
  timer_fd_ = ::timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal_fd_ = ::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
  if (epoll_fd_ < 0 || timer_fd_ < 0 || signal_fd_ < 0)
    return from_errno("Cannot make the guard's timer", errno);
  restore();
  TRY(listen());
  for (int fd : {timer_fd_, signal_fd_, listen_fd_, reports_->event_fd()}) {
    epoll_event event{EPOLLIN, {.fd = fd}};
    if (::epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event) != 0)
      return from_errno("Cannot watch a descriptor", errno);
  }
  return {};
}

Status GuardServer::take_lock() {
  const std::string path = config_.run_dir + "/guard.lock";
  lock_fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock_fd_ < 0) return from_errno("Cannot open " + path, errno);
  if (::flock(lock_fd_, LOCK_EX | LOCK_NB) == 0) return {};
  return Error{Code::conflict, "Another holdfast-guard runs in " + config_.run_dir + "; stop it first."};
}

Status GuardServer::listen() {
  const std::string path = config_.run_dir + "/guard.sock";
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    return Error{Code::invalid, path + " is too long for a socket's path."};
  std::memcpy(address.sun_path, path.c_str(), path.size());
  ::unlink(path.c_str());
  listen_fd_ = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const mode_t before = ::umask(0177);  // mode 0600 from its first moment
  const bool bound =
      listen_fd_ >= 0 && ::bind(listen_fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  ::umask(before);
  if (!bound || ::listen(listen_fd_, kClientsMax) != 0) return from_errno("Cannot listen on " + path, errno);
  return {};
}

void GuardServer::restore() {
  const auto text = slurp(config_.run_dir + "/guard.state");
  if (!text.ok()) return;
  const auto state = decode_state(*text);
  if (!state.ok()) {
    // Their pages expire and hold them; the agent finds them missing in `status` and acts.
    log(Level::error, "guard.state is damaged; its VMs stay held", {{"why", state.error().what}});
    return;
  }
  for (const auto& admission : state->admissions) {
    if (const Status attached = control_.attach(admission); !attached.ok()) {
      log(Level::warn, "VM is gone", {{"vm", admission.vm.text}, {"why", attached.error().what}});
      continue;
    }
    // safety (freeze latch): a restarted guard never thaws; what was frozen or held waits for a confirmation.
    guard_.restore(admission, control_.page(admission.vm), control_.cgroup_frozen(admission.vm), sys::boot_now());
  }
  carry_out();
  if (const Status begun = set_slots(state->slots); !begun.ok()) {
    log(Level::error, "the slots of before cannot be renewed", {{"why", begun.error().what}});
  }
}

Status GuardServer::run() {
  while (!stopping_) wait_and_handle();
  log(Level::info, "guard ends", {{"vms", std::to_string(guard_.vms().size())}});
  return {};
}

void GuardServer::wait_and_handle() {
  guard_.tick(sys::boot_now());
  carry_out();
  arm_timer(control_.retry());
  std::array<epoll_event, 16> events{};
  const int count = ::epoll_wait(epoll_fd_, events.data(), static_cast<int>(events.size()), -1);
  // safety (deadline): whatever woke it, and however late: first the deadline.
  guard_.tick(sys::boot_now());
  carry_out();
  for (int i = 0; i < count; ++i) {
    const int fd = events[static_cast<std::size_t>(i)].data.fd;
    if (fd == signal_fd_) {
      stopping_ = true;
    } else if (fd == listen_fd_) {
      accept_client();
    } else if (fd == reports_->event_fd()) {
      take_reports();
    } else if (fd != timer_fd_ && clients_.contains(fd)) {
      handle_client(fd);
    }
  }
  check_slots();
  check_contact();
}

void GuardServer::check_contact() {
  const bool fresh = guard_.contact_fresh(sys::boot_now());
  if (fresh == announced_fresh_ && guard_.generation() == announced_generation_) return;
  announced_fresh_ = fresh;
  announced_generation_ = guard_.generation();
  GuardEvent event;
  event.kind = GuardEvent::Kind::contact;
  push(event);
}

void GuardServer::arm_timer(bool retry_soon) {
  const Instant now = sys::boot_now();
  Instant next = now + config_.heartbeat;
  if (retry_soon) next = std::min(next, now + kRetryAfter);
  // A deadline that has passed was handled by the tick before.
  if (guard_.deadline() > now) next = std::min(next, guard_.deadline());
  const Duration since_boot = next.time_since_epoch();
  itimerspec when{};
  when.it_value.tv_sec = std::chrono::duration_cast<std::chrono::seconds>(since_boot).count();
  when.it_value.tv_nsec = (since_boot % 1s).count();
  ENSURE(::timerfd_settime(timer_fd_, TFD_TIMER_ABSTIME, &when, nullptr) == 0,
         "The deadline's timer must be set.");
}

void GuardServer::carry_out() {
  const auto actions = guard_.take_actions();
  // Pages of all VMs first: a slow cgroup of one must not let another write on.
  for (const auto& action : actions) {
    if (std::holds_alternative<ha::SetHold>(action)) control_.apply(action);
  }
  for (const auto& action : actions) {
    if (!std::holds_alternative<ha::SetHold>(action)) control_.apply(action);
  }
  for (const auto& action : actions) announce(action);
  if (!actions.empty()) publish_content();
}

void GuardServer::announce(const ha::GuardAction& action) {
  if (std::holds_alternative<ha::SetHold>(action)) return;
  const bool freeze = std::holds_alternative<ha::Freeze>(action);
  GuardEvent event;
  event.kind = freeze ? GuardEvent::Kind::frozen : GuardEvent::Kind::thawed;
  event.vm = report_of(freeze ? std::get<ha::Freeze>(action).vm : std::get<ha::Thaw>(action).vm);
  log(freeze ? Level::warn : Level::info, freeze ? "VM frozen" : "VM thawed",
      {{"vm", event.vm.vm.text}, {"epoch", std::to_string(event.vm.epoch.number)}, {"why", event.vm.reason}});
  push(event);
}

void GuardServer::accept_client() {
  const int fd = ::accept4(listen_fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) return;
  ucred peer{};
  socklen_t length = sizeof peer;
  const bool known = ::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 &&
                     (peer.uid == 0 || peer.uid == ::geteuid());
  epoll_event event{EPOLLIN, {.fd = fd}};
  if (!known || clients_.size() >= kClientsMax || ::epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event) != 0) {
    ::close(fd);
    return;
  }
  clients_[fd] = Client{};
}

void GuardServer::close_client(int fd) {
  clients_.erase(fd);
  ::close(fd);
}

void GuardServer::handle_client(int fd) {
  std::string packet(kPacketMax, '\0');
  const ssize_t length = ::recv(fd, packet.data(), packet.size(), MSG_DONTWAIT);
  if (length < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (length <= 0) return close_client(fd);
  packet.resize(static_cast<std::size_t>(length));
  const auto request = decode_request(packet);
  const Status outcome = request.ok() ? handle(*request) : Status{request.error()};
  // What was decided is done before anybody hears of it.
  carry_out();
  const bool with_status =
      request.ok() && (request->op == Request::Op::status || request->op == Request::Op::subscribe);
  if (!clients_.contains(fd)) return;  // cut off by a push
  const std::string reply = encode_reply(outcome, with_status ? std::optional(status()) : std::nullopt);
  if (!send_packet(fd, reply)) return close_client(fd);
  // Only now, so that no event comes before the answer.
  if (request.ok() && request->op == Request::Op::subscribe) clients_[fd].subscribed = true;
}

Status GuardServer::handle(const Request& request) {
  switch (request.op) {
    case Request::Op::renewed:
      session_ = request.session;
      guard_.renewed(ha::Channel::store, request.started, sys::boot_now());
      publish_content();
      return {};
    case Request::Op::slots:
      TRY(set_slots(request.slots));
      return save_state(nullptr);
    case Request::Op::admit:
      return admit(request.admission, request.generation);
    case Request::Op::thaw:
      return guard_.thaw(request.vm, request.epoch, request.generation, sys::boot_now());
    case Request::Op::drop:
      guard_.drop(request.vm, request.epoch, sys::boot_now());
      carry_out();
      if (!guard_.vms().contains(request.vm)) control_.detach(request.vm);
      publish_content();
      return save_state(nullptr);
    case Request::Op::freeze_all:
      guard_.freeze_all(request.reason, sys::boot_now());
      return {};
    case Request::Op::status:
      return {};
    case Request::Op::subscribe:
      return {};
  }
  return Error{Code::invalid, "The guard does not know this request."};
}

Status GuardServer::admit(const ha::Admission& admission, std::uint64_t generation) {
  const bool known = guard_.vms().contains(admission.vm);
  if (!known) {
    TRY(control_.attach(admission));
    Status ready = admission.is_protected ? control_.check_shim(admission.vm) : Status{};
    // The state first: a guard that dies right after must find the VM again.
    if (ready.ok()) ready = save_state(&admission);
    if (!ready.ok()) {
      control_.detach(admission.vm);
      return ready;
    }
  }
  const Status admitted = guard_.admit(admission, generation, sys::boot_now());
  if (!admitted.ok() && !known) {
    control_.detach(admission.vm);
    TRY(save_state(nullptr));
  }
  return admitted;
}

Status GuardServer::set_slots(const std::vector<SlotTarget>& targets) {
  if (targets.size() > kSlotsMax) {
    return Error{Code::no_room, fmt::format("A host has at most {} heartbeat slots.", kSlotsMax)};
  }
  std::erase_if(left_behind_, [](const auto& life) { return life.expired(); });
  if (left_behind_.size() >= kStuckThreadsMax) {
    return Error{Code::no_room,
                 "Too many renewals hang on datastores that do not answer; repair those first."};
  }
  std::vector<SlotTarget> missing = targets;
  for (auto slot = slots_.begin(); slot != slots_.end();) {
    const auto kept = std::find(missing.begin(), missing.end(), slot->second.target);
    if (kept != missing.end()) {
      missing.erase(kept);
      ++slot;
      continue;
    }
    left_behind_.push_back(slot->second.writer->thread_life());
    slot = slots_.erase(slot);
  }
  for (const auto& target : missing) {
    const std::uint64_t number = next_writer_++;
    Slot& slot = slots_[number];
    slot.target = target;
    slot.begun = sys::boot_now();
    slot.report.datastore = target.datastore;
    slot.report.mount = target.mount;
    slot.report.ok = true;  // until three heartbeats have passed
    slot.writer = std::make_unique<SlotWriter>(
        SlotWriter::Options{number, target, config_.host, config_.heartbeat}, content_, reports_);
  }
  return {};
}

void GuardServer::take_reports() {
  for (const auto& renewal : reports_->take()) {
    const auto found = slots_.find(renewal.writer);
    if (found == slots_.end()) continue;  // of a writer that was given up
    SlotReport& report = found->second.report;
    report.latency = renewal.latency;
    if (renewal.error) {
      ++report.failures;
      report.error = renewal.error->what;
      continue;
    }
    report.failures = 0;
    report.last_success = renewal.started;
    guard_.renewed(ha::Channel::slot, renewal.started, sys::boot_now());
  }
  carry_out();
}

void GuardServer::check_slots() {
  const Instant now = sys::boot_now();
  for (auto& [number, slot] : slots_) {
    const bool ok =
        now - std::max(slot.report.last_success, slot.begun) < kMissedHeartbeats * config_.heartbeat;
    if (ok == slot.report.ok) continue;
    slot.report.ok = ok;
    log(ok ? Level::info : Level::warn,
        ok ? "heartbeat slot is renewed again" : "heartbeat slot is not renewed",
        {{"datastore", slot.target.datastore.text},
         {"mount", slot.target.mount},
         {"why", slot.report.error}});
    GuardEvent event;
    event.kind = ok ? GuardEvent::Kind::slot_back : GuardEvent::Kind::slot_lost;
    event.slot = slot.report;
    push(event);
  }
}

void GuardServer::publish_content() {
  ha::Slot slot;
  slot.host = config_.host;
  slot.session = session_;
  slot.incarnation = incarnation_;
  slot.stopped_all = true;
  for (const auto& [id, vm] : guard_.vms()) {
    slot.running.push_back({id, vm.admission.epoch});
    if (vm.state == ha::Guard::State::running) slot.stopped_all = false;
  }
  slot.running_total = static_cast<std::uint32_t>(slot.running.size());
  content_->set(std::move(slot));
}

// Replaced as a whole, on tmpfs: nothing to make durable, it is void after a reboot.
Status GuardServer::save_state(const ha::Admission* added) {
  GuardState state;
  for (const auto& [id, vm] : guard_.vms()) state.admissions.push_back(vm.admission);
  if (added != nullptr) state.admissions.push_back(*added);
  for (const auto& [number, slot] : slots_) state.slots.push_back(slot.target);
  const std::string path = config_.run_dir + "/guard.state";
  const std::string temporary = path + ".new";
  {
    std::ofstream out(temporary, std::ios::binary | std::ios::trunc);
    out << encode_state(state);
    out.flush();
    if (!out) return Error{Code::failed, "Cannot write " + temporary + "."};
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) return from_errno("Cannot rename " + temporary, errno);
  return {};
}

VmReport GuardServer::report_of(const VmId& id) const {
  const auto& vm = guard_.vms().at(id);
  return {id, vm.admission.epoch, vm.state, vm.generation, vm.reason};
}

GuardStatus GuardServer::status() const {
  GuardStatus status;
  status.now = sys::boot_now();
  status.deadline = guard_.deadline();
  status.contact_fresh = guard_.contact_fresh(status.now);
  status.generation = guard_.generation();
  for (const auto& [id, vm] : guard_.vms()) status.vms.push_back(report_of(id));
  for (const auto& [number, slot] : slots_) status.slots.push_back(slot.report);
  return status;
}

bool GuardServer::send_packet(int fd, const std::string& packet) {
  return ::send(fd, packet.data(), packet.size(), MSG_DONTWAIT | MSG_NOSIGNAL) ==
         static_cast<ssize_t>(packet.size());
}

void GuardServer::push(const GuardEvent& event) {
  const std::string packet = encode(event);
  std::vector<int> deaf;
  for (const auto& [fd, client] : clients_) {
    // A subscriber that does not read is cut off: it comes back and asks for the status.
    if (client.subscribed && !send_packet(fd, packet)) deaf.push_back(fd);
  }
  for (int fd : deaf) close_client(fd);
}

}  // namespace hf::guard
