#include "sys/qemu/engine_monitor.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/ensure.hpp"
#include "base/log.hpp"
#include "sys/process/clock.hpp"
#include "sys/qemu/migration_events.hpp"
#include "sys/qemu/unix_socket.hpp"

namespace hf::qemu {
namespace {
using nlohmann::json;
using process::UniqueFd;

constexpr Duration kEndNoticed = 20ms;  // that QEMU has ended is not signalled
constexpr Duration kGoodbyeLimit = 1s;
constexpr int kSocketBytes = 4 << 20;  // more than a device state: QEMU finds all of it at once

Result<std::string> content_of(int fd) {
  struct stat status{};
  if (::fstat(fd, &status) < 0) return from_errno("Cannot read the devices' state", errno);
  if (status.st_size <= 0 || static_cast<std::size_t>(status.st_size) > kDeviceStateMax) {
    return Error{Code::corrupt, "The devices' state has " + std::to_string(status.st_size) +
                                    " bytes; at most " + std::to_string(kDeviceStateMax) +
                                    " can be taken over."};
  }
  std::string content(static_cast<std::size_t>(status.st_size), '\0');
  for (std::size_t at = 0; at < content.size();) {
    const ssize_t count = ::pread(fd, content.data() + at, content.size() - at, static_cast<off_t>(at));
    if (count <= 0) return from_errno("Cannot read the devices' state", count < 0 ? errno : EIO);
    at += static_cast<std::size_t>(count);
  }
  return content;
}

}  // namespace

Result<std::unique_ptr<EngineMonitor>> EngineMonitor::connect(const std::string& engine_socket,
                                                              Duration limit) {
  auto migration = std::make_shared<Migration>();
  TRY_ASSIGN(auto monitor, QmpClient::connect(engine_socket,
                                              [migration](const std::string& event, const std::string& data) {
                                                migration->take(event, data);
                                              }));
  std::unique_ptr<EngineMonitor> made(new EngineMonitor(std::move(migration), std::move(monitor)));
  TRY(made->command("query-status", {}, limit));
  return made;
}

EngineMonitor::EngineMonitor(std::shared_ptr<Migration> migration, std::unique_ptr<QmpClient> monitor)
    : migration_(std::move(migration)), monitor_(std::move(monitor)) {}

DiskCopy EngineMonitor::disk_copy(const TaskId& motion) { return {*monitor_, migration_->jobs, motion}; }

// A QEMU that goes on would keep the descriptor.
EngineMonitor::~EngineMonitor() {
  if (!saved_) return;
  const json id = {{"fdset-id", saved_->set}};
  if (const Status removed = command("remove-fd", id.dump(), kGoodbyeLimit); !removed.ok()) {
    log(Level::debug, "QEMU keeps the descriptor of a device state", {{"why", removed.error().what}});
  }
}

Status EngineMonitor::command(std::string_view what, std::string_view arguments, Duration limit,
                              int passed_fd) {
  const auto answer = monitor_->execute(what, arguments, limit, passed_fd);
  if (!answer) return answer.error();
  return {};
}

GuestState EngineMonitor::guest(Duration limit) { return guest_state(query_status(*monitor_, limit)); }

Status EngineMonitor::stop(Duration limit) { return command("stop", {}, limit); }

Status EngineMonitor::run(Duration limit) {
  const Instant deadline = sys::boot_now() + limit;
  const GuestState state = guest(limit);
  // safety: QEMU takes a `cont` before the memory is there as "run as soon as it is", whoever owns the VM by then.
  if (state == GuestState::waits_for_memory) {
    return Error{Code::conflict, "The guest's memory is not here yet: it cannot run."};
  }
  if (state == GuestState::unknown)
    return Error{Code::unavailable, "QEMU does not answer: the VM may be frozen."};
  return command("cont", {}, deadline - sys::boot_now());
}

Status EngineMonitor::announce(Duration limit) { return announce_self(*monitor_, limit); }

// QEMU reads its commands byte by byte, six to eight system calls each: every command costs half a millisecond or more.
// So a save is one command, and the others go before the stop.
Status EngineMonitor::prepare_to_save(Duration limit) {
  StateFile file{UniqueFd(::memfd_create("device-state", MFD_CLOEXEC)), UniqueFd()};
  if (!file.reader) return from_errno("Cannot make a file for the devices' state", errno);
  const std::string path = "/proc/self/fd/" + std::to_string(file.reader.get());
  file.writer.reset(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!file.writer) return from_errno("Cannot open the file for the devices' state", errno);
  TRY_ASSIGN(const std::string answer, monitor_->execute("add-fd", {}, limit, file.writer.get()));
  const json set = json::parse(answer, nullptr, false);
  if (!set.is_object() || !set.contains("fdset-id") || !set["fdset-id"].is_number_unsigned()) {
    return Error{Code::failed, "QEMU took a descriptor and does not say under which number."};
  }
  file.set = set["fdset-id"].get<std::uint64_t>();
  saved_ = std::move(file);
  return {};
}

Result<std::string> EngineMonitor::save_devices(Images images, Duration limit) {
  ENSURE(saved_.has_value(), "a save is prepared");
  // QEMU's descriptor shares its place in the file with ours.
  if (::ftruncate(saved_->writer.get(), 0) < 0 || ::lseek(saved_->writer.get(), 0, SEEK_SET) < 0) {
    return from_errno("Cannot empty the file for the devices' state", errno);
  }
  const json arguments = {{"filename", "/dev/fdset/" + std::to_string(saved_->set)},
                          {"live", images == Images::released}};
  if (const Status saved = command("xen-save-devices-state", arguments.dump(), limit); !saved.ok()) {
    return because("Cannot save the devices' state", saved.error());
  }
  return content_of(saved_->reader.get());
}

Status EngineMonitor::prepare_to_load(Duration limit) {
  const Instant deadline = sys::boot_now() + limit;
  // safety: the source owns disks and addresses until the commit. late-block-activate: opening an image for good may
  // write to it (and would wait in the shim for ever, the hold page being held); it is done by `cont`. No rounds of
  // announcements: QEMU would tell the switches at the end of the load.
  TRY(command("migrate-set-capabilities",
              R"({"capabilities":[{"capability":"events","state":true},)"
              R"({"capability":"late-block-activate","state":true}]})",
              limit));
  TRY(command("migrate-set-parameters", R"({"announce-rounds":0})", deadline - sys::boot_now()));
  // What xen-save-devices-state writes is not followed by a description of itself.
  TRY(command("qom-set", R"({"path":"/machine","property":"suppress-vmdesc","value":true})",
              deadline - sys::boot_now()));
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
    return from_errno("Cannot make a socket for the devices' state", errno);
  }
  UniqueFd ours(ends[0]);
  const UniqueFd theirs(ends[1]);  // closed by the end: QEMU's alone, so writing to one that has ended fails
  if (::setsockopt(ours.get(), SOL_SOCKET, SO_SNDBUFFORCE, &kSocketBytes, sizeof kSocketBytes) < 0) {
    log(Level::debug, "QEMU loads the devices' state from a small socket", {{"why", std::strerror(errno)}});
  }
  TRY(command("getfd", R"({"fdname":"devices"})", deadline - sys::boot_now(), theirs.get()));
  TRY(command("migrate-incoming", R"({"uri":"fd:devices"})", deadline - sys::boot_now()));
  incoming_ = std::move(ours);
  return {};
}

Status EngineMonitor::load_devices(std::string_view state, Duration limit) {
  const Instant deadline = sys::boot_now() + limit;
  const UniqueFd to_qemu = std::move(incoming_);
  ENSURE(static_cast<bool>(to_qemu), "a load is prepared, and done once");
  if (state.size() > kDeviceStateMax) return Error{Code::corrupt, "The devices' state is too long."};
  const Status sent = send_all(to_qemu.get(), state, limit);
  ::shutdown(to_qemu.get(), SHUT_WR);  // a state that ends too early is no state
  const Status loaded = wait_until_loaded(deadline);
  if (!loaded.ok() || sent.ok()) return loaded;
  return sent;
}

Status EngineMonitor::wait_until_loaded(Instant deadline) {
  std::unique_lock lock(migration_->mutex);
  for (;;) {
    if (migration_->status == "completed") return {};
    lock.unlock();
    const bool closed = monitor_->has_closed(0s);
    lock.lock();
    if (migration_->status == "failed" || closed) {
      return Error{Code::failed, "QEMU could not load the devices' state: its log (qemu.log) says why."};
    }
    const Duration left = deadline - sys::boot_now();
    if (left <= 0s) return Error{Code::outcome_unknown, "QEMU did not load the devices' state in time."};
    migration_->changed.wait_for(lock, std::min(left, kEndNoticed));
  }
}

Status announce_self(QmpClient& monitor, Duration limit) {
  const auto answer =
      monitor.execute("announce-self", R"({"initial":50,"max":550,"rounds":5,"step":100})", limit);
  return answer ? Status() : Status(answer.error());
}

std::string query_status(QmpClient& monitor, Duration limit) {
  const auto answer = monitor.execute("query-status", {}, limit);
  const json object = answer ? json::parse(*answer, nullptr, false) : json();
  if (!object.is_object() || !object.contains("status") || !object["status"].is_string()) return {};
  return object["status"].get<std::string>();
}

GuestState guest_state(std::string_view status) {
  if (status.empty()) return GuestState::unknown;
  if (status == "inmigrate") return GuestState::waits_for_memory;
  if (status == "running") return GuestState::running;
  for (const char* stopped : {"paused", "postmigrate", "finish-migrate", "prelaunch"}) {
    if (status == stopped) return GuestState::stopped;
  }
  return GuestState::held;
}

}  // namespace hf::qemu
