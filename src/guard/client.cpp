#include "guard/client.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <thread>

#include "base/ensure.hpp"

namespace hf::guard {
namespace {
constexpr int kReconnectMs = 200;

Result<int> connect_to(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    return Error{Code::invalid, path + " is too long for a socket's path."};
  std::memcpy(address.sun_path, path.c_str(), path.size());
  const int fd = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (fd < 0) return from_errno("Cannot make a socket", errno);
  timeval timeout{};
  timeout.tv_sec = std::chrono::duration_cast<std::chrono::seconds>(GuardClient::kTimeout).count();
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return fd;
  const Error cause = from_errno("The guard cannot be reached at " + path, errno);
  ::close(fd);
  return Error{Code::unavailable, cause.what + " Is holdfast-guard running?"};
}

Result<std::string> receive(int fd) {
  std::string packet(kPacketMax, '\0');
  const ssize_t length = ::recv(fd, packet.data(), packet.size(), 0);
  if (length <= 0) return Error{Code::outcome_unknown, "The guard did not answer."};
  packet.resize(static_cast<std::size_t>(length));
  return packet;
}

bool send_all(int fd, const std::string& packet) {
  return ::send(fd, packet.data(), packet.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(packet.size());
}

Status only_status(const Result<GuardStatus>& result) {
  return result.ok() ? Status{} : Status{result.error()};
}
}  // namespace

GuardClient::~GuardClient() { disconnect(); }

void GuardClient::disconnect() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

Result<GuardStatus> GuardClient::exchange(const std::string& packet) {
  // A socket left from before the guard's restart fails to send; then once more on a new one.
  if (fd_ < 0 || !send_all(fd_, packet)) {
    disconnect();
    TRY_ASSIGN(fd_, connect_to(path_));
    if (!send_all(fd_, packet)) {
      disconnect();
      return Error{Code::unavailable, "The guard does not take requests."};
    }
  }
  const auto reply = receive(fd_);
  if (!reply.ok()) {
    disconnect();  // a late answer must not be taken for the next one's
    return reply.error();
  }
  return decode_reply(*reply);
}

Result<GuardStatus> GuardClient::call(const Request& request) {
  const std::lock_guard lock(mutex_);
  return exchange(encode(request));
}

Status GuardClient::renewed(Instant started, const SessionId& session) {
  Request request;
  request.op = Request::Op::renewed;
  request.started = started;
  request.session = session;
  return only_status(call(request));
}
Status GuardClient::set_slots(const std::vector<SlotTarget>& slots) {
  Request request;
  request.op = Request::Op::slots;
  request.slots = slots;
  return only_status(call(request));
}
Status GuardClient::admit(const ha::Admission& admission, std::uint64_t generation) {
  Request request;
  request.op = Request::Op::admit;
  request.admission = admission;
  request.generation = generation;
  return only_status(call(request));
}
Status GuardClient::thaw(const VmId& vm, Epoch epoch, std::uint64_t generation) {
  Request request;
  request.op = Request::Op::thaw;
  request.vm = vm;
  request.epoch = epoch;
  request.generation = generation;
  return only_status(call(request));
}
Status GuardClient::drop(const VmId& vm, Epoch epoch) {
  Request request;
  request.op = Request::Op::drop;
  request.vm = vm;
  request.epoch = epoch;
  return only_status(call(request));
}
Status GuardClient::freeze_all(const std::string& reason) {
  Request request;
  request.op = Request::Op::freeze_all;
  request.reason = reason;
  return only_status(call(request));
}
Result<GuardStatus> GuardClient::status() { return call(Request{}); }

struct GuardSubscription::Worker {
  std::string path;
  Callbacks callbacks;
  int stop_fd = ::eventfd(0, EFD_CLOEXEC);
  std::thread thread;

  // True: stop was asked for.
  bool wait(int fd, int timeout_ms) const {
    pollfd fds[2] = {{stop_fd, POLLIN, 0}, {fd, POLLIN, 0}};
    ::poll(fds, fd >= 0 ? 2 : 1, timeout_ms);
    return (fds[0].revents & POLLIN) != 0;
  }

  Result<int> subscribe() const {
    TRY_ASSIGN(const int fd, connect_to(path));
    Request request;
    request.op = Request::Op::subscribe;
    auto answered = [&]() -> Result<GuardStatus> {
      if (!send_all(fd, encode(request)))
        return Error{Code::unavailable, "The guard does not take requests."};
      TRY_ASSIGN(const std::string reply, receive(fd));
      return decode_reply(reply);
    }();
    if (!answered.ok()) {
      ::close(fd);
      return answered.error();
    }
    callbacks.on_status(*answered);
    return fd;
  }

  void run() const {
    bool connected_before = true;
    for (;;) {
      const auto fd = subscribe();
      if (!fd.ok()) {
        if (std::exchange(connected_before, false)) callbacks.on_lost(fd.error());
        if (wait(-1, kReconnectMs)) return;
        continue;
      }
      connected_before = true;
      for (;;) {
        if (wait(*fd, -1)) {
          ::close(*fd);
          return;
        }
        const auto packet = receive(*fd);
        if (!packet.ok()) break;
        if (const auto event = decode_event(*packet); event.ok()) callbacks.on_event(*event);
      }
      ::close(*fd);
    }
  }
};

GuardSubscription::GuardSubscription(const std::string& socket_path, Callbacks callbacks)
    : worker_(std::make_unique<Worker>()) {
  ENSURE(worker_->stop_fd >= 0, "An eventfd is needed.");
  worker_->path = socket_path;
  worker_->callbacks = std::move(callbacks);
  worker_->thread = std::thread([worker = worker_.get()] { worker->run(); });
}

GuardSubscription::~GuardSubscription() {
  const std::uint64_t one = 1;
  ENSURE(::write(worker_->stop_fd, &one, sizeof one) == sizeof one, "The eventfd takes a count.");
  worker_->thread.join();
  ::close(worker_->stop_fd);
}

}  // namespace hf::guard
