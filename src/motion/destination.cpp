#include "motion/destination.hpp"

#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <future>
#include <optional>
#include <thread>
#include <utility>

#include "base/break_point.hpp"
#include "base/log.hpp"
#include "engine/attach.hpp"
#include "engine/stream/control.hpp"
#include "engine/tunnel.hpp"
#include "sys/process/clock.hpp"
#include "sys/process/hurry.hpp"
#include "sys/qemu/tap.hpp"

namespace hf::motion {
namespace {
using engine::wire::Kind;
constexpr Duration kLoadLimit = 30s;
constexpr Duration kLook = 100ms;  // between two looks at what may have ended the motion

Error misplaced() { return {Code::corrupt, "The source said something that has no place here."}; }

template <class Event>
Result<Event> expect(Result<engine::ReceiverEvent> event) {
  if (!event) return event.error();
  if (auto* wanted = std::get_if<Event>(&*event)) return std::move(*wanted);
  return misplaced();
}

// What the source says at the end: that its guest stands still, and that it has committed, which it cannot before
// everything was loaded here. Its thread is "hf-control".
class SourceWord {
 public:
  SourceWord(engine::stream::Control& control, engine::Failure& failure, std::function<void()> on_stopped)
      : control_(control), failure_(failure), on_stopped_(std::move(on_stopped)), thread_([this] {
          ::pthread_setname_np(::pthread_self(), "hf-control");
          word_.set_value(listen());
        }) {}
  ~SourceWord() { failure_.set({Code::failed, "The motion has ended."}); }
  SourceWord(const SourceWord&) = delete;
  SourceWord& operator=(const SourceWord&) = delete;

  void expect_committed() { expected_ = true; }
  // The version that the store gave the commit.
  Result<std::uint64_t> wait() { return word_.get_future().get(); }
  // REQUIRES: the motion has failed. The source's own reason, if it gave one.
  Error why_not() {
    const auto word = wait();
    return word.ok() ? misplaced() : word.error();
  }

 private:
  Result<std::uint64_t> listen() {
    TRY_ASSIGN(engine::Frame frame, control_.read());
    if (frame.header.kind == Kind::stopped) {
      on_stopped_();
      TRY_ASSIGN(frame, control_.read());
    }
    Result<std::uint64_t> version = misplaced();
    if (frame.header.kind == Kind::committed && expected_) version = engine::wire::decode_version(frame.body);
    if (!version.ok()) control_.fail(version.error());
    return version;
  }

  engine::stream::Control& control_;
  engine::Failure& failure_;
  const std::function<void()> on_stopped_;
  std::atomic<bool> expected_{false};
  std::promise<Result<std::uint64_t>> word_;
  std::jthread thread_;  // last: it uses all of the above
};

}  // namespace

Destination::Destination(Master& master, Receive order) : master_(master), order_(std::move(order)) {
  master_.watch([failure = failure_](const Error& why) { failure->set(why); });
}

int Destination::run() {
  const Status received = receive();
  if (received.ok()) return 0;
  const Error why = reason_of(*failure_, received.error());
  log(Level::warn, "a motion has failed", {{"vm", order_.leg.vm.text}, {"why", why.what}});
  if (const Status told = master_.report(Failed{why, Guest::none}); !told.ok()) {
    log(Level::warn, "nobody was told that the motion has failed", {{"why", told.error().what}});
  }
  return info(why.code).exit_status;
}

// The guest neither runs here yet, nor may it. But it stands still at the source, where frames for it would be lost;
// here they wait. A source that gives up calls it back.
void Destination::announce(int qemu) const {
  for (std::size_t index = 0; index < order_.macs.size(); ++index) {
    const Status told = qemu::announce(qemu, qemu::tap_name(order_.leg.vm, index), order_.macs[index]);
    if (!told.ok()) log(Level::info, "a guest was not announced early", {{"why", told.error().what}});
  }
}

Status Destination::receive() {
  const qemu::RunDir dir{order_.leg.run_dir};
  TRY_ASSIGN(const auto monitor, qemu::EngineMonitor::connect(dir.engine_socket(), kQemuLimit));
  if (monitor->guest(kQemuLimit) != GuestState::waits_for_memory) {
    return Error{Code::conflict, "This QEMU does not wait for a guest's memory."};
  }
  return order_.leg.engine == Engine::qemu ? receive_by_qemu(*monitor, dir) : receive_pages(*monitor, dir);
}

Status Destination::serve_disks(const qemu::RunDir& dir) {
  for (const auto& disk : order_.disks) {
    TRY_ASSIGN(auto server, DiskServer::start(disk, dir.disk_socket(disk.name)));
    disks_.push_back(std::move(server));
  }
  return {};
}

Status Destination::receive_pages(qemu::EngineMonitor& monitor, const qemu::RunDir& dir) {
  TRY(serve_disks(dir));
  TRY(monitor.prepare_to_load(kQemuLimit));
  TRY_ASSIGN(qemu::ShimAnswer shim, qemu::ask_shim(dir.memory_socket(), kQemuLimit));
  // Both do nothing until the guest stands still. QEMU stays hurried until holdfastd lets the guest run. What places
  // pages in the rounds before is started later, and is not hurried.
  process::hurry(shim.qemu_pid);
  const int own_nice = ::getpriority(PRIO_PROCESS, 0);
  process::hurry(::getpid());
  TRY_ASSIGN(engine::GuestMemory memory, engine::map_guest_memory(shim));
  const int qemu = shim.qemu_pid;
  shim = {};
  TRY_ASSIGN(const engine::ConnectionOptions options, connection_options(order_.leg));
  TRY_ASSIGN(engine::Listener listener, engine::Listener::open(order_.address));
  TRY(master_.report(Listening{listener.endpoint()}));
  break_point("destination.listening");
  TRY_ASSIGN(engine::Connections connections,
             listener.accept(options, memory.blocks(), order_.patience, failure_));
  const bool encrypted = connections.encrypted;
  TRY_ASSIGN(const auto receiver, engine::Receiver::start(memory, std::move(connections)));
  std::unique_ptr<engine::TunnelExit> tunnel;
  if (!disks_.empty()) {
    std::map<std::string, std::string> channels;
    for (const auto& disk : order_.disks) channels[disk_channel(disk.name)] = dir.disk_socket(disk.name);
    tunnel = engine::TunnelExit::start(std::move(listener), {options, encrypted, 0}, std::move(channels), failure_);
  }
  TRY(expect<engine::GuestStopped>(receiver->next()));
  announce(qemu);
  TRY_ASSIGN(const auto state, expect<engine::DeviceState>(receiver->next()));
  break_point("destination.load");
  // safety: nobody writes the images any more, once the source may ask for the commit.
  for (const auto& disk : disks_) {
    const Status closed = disk->wait_closed(kLoadLimit);
    if (closed.ok()) continue;
    receiver->abort(closed.error().what);
    return closed;
  }
  const Instant began = sys::boot_now();
  const std::string_view bytes(reinterpret_cast<const char*>(state.bytes.data()), state.bytes.size());
  if (const Status loaded = monitor.load_devices(bytes, kLoadLimit); !loaded.ok()) {
    receiver->abort(loaded.error().what);
    return loaded;
  }
  // safety: loaded, not running: the source's right ends with the commit, and only holdfastd knows of that.
  break_point("destination.loaded");
  TRY(receiver->tell_loaded());
  TRY(master_.report(Loaded{sys::boot_now() - began}));
  TRY_ASSIGN(const auto committed, expect<engine::Committed>(receiver->next()));
  const Status told = master_.report(Arrived{committed.version});
  // The guest is not to wait until our part of its memory is unmapped.
  process::end_hurry(::getpid(), own_nice);
  return told;
}

Status Destination::receive_by_qemu(qemu::EngineMonitor& monitor, const qemu::RunDir& dir) {
  TRY_ASSIGN(const qemu::LaunchRecord record, launch_record(dir));
  TRY(monitor.prepare_to_receive(dir.migration_socket(), is_emulated(record), kQemuLimit));
  TRY_ASSIGN(const engine::ConnectionOptions options, connection_options(order_.leg));
  TRY_ASSIGN(engine::Listener listener, engine::Listener::open(order_.address));
  TRY(master_.report(Listening{listener.endpoint()}));
  TRY_ASSIGN(const engine::Connections connections, listener.accept(options, {}, order_.patience, failure_));
  engine::stream::Control control(*connections.control, *failure_, connections.silence, "source");
  const auto tunnel = engine::TunnelExit::start(std::move(listener), {options, connections.encrypted, 0},
                                                {{kMigrationChannel, dir.migration_socket()}}, failure_);
  // QEMU stays hurried until holdfastd lets the guest run.
  SourceWord word(control, *failure_, [pid = record.pid] {
    process::hurry(pid);
    process::hurry(::getpid());
  });
  for (bool loaded = false; !loaded;) {
    if (failure_->is_set()) return word.why_not();
    auto migrated = monitor.has_migrated(kLook);
    if (!migrated.ok()) control.fail(migrated.error());
    TRY_ASSIGN(loaded, std::move(migrated));
  }
  announce(record.pid);
  break_point("destination.loaded");
  // safety: loaded, not running: the source's right ends with the commit, and only holdfastd knows of that.
  word.expect_committed();
  TRY(control.write(Kind::loaded));
  TRY(master_.report(Loaded{}));
  TRY_ASSIGN(const std::uint64_t version, word.wait());
  return master_.report(Arrived{version});
}

}  // namespace hf::motion
