#include "motion/destination.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <optional>
#include <utility>

#include "base/break_point.hpp"
#include "base/log.hpp"
#include "engine/attach.hpp"
#include "sys/process/clock.hpp"
#include "sys/process/hurry.hpp"
#include "sys/qemu/tap.hpp"

namespace hf::motion {
namespace {
constexpr Duration kLoadLimit = 30s;

template <class Event>
Result<Event> expect(Result<engine::ReceiverEvent> event) {
  if (!event) return event.error();
  if (auto* wanted = std::get_if<Event>(&*event)) return std::move(*wanted);
  return Error{Code::corrupt, "The source said something that has no place here."};
}

}  // namespace

Destination::Destination(Master& master, Receive order) : master_(master), order_(std::move(order)) {
  master_.watch([failure = failure_](const Error& why) { failure->set(why); });
}

int Destination::run() {
  const Status received = receive();
  if (received.ok()) return 0;
  const Error why = failure_->is_set() ? failure_->status().error() : received.error();
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
  TRY(monitor->prepare_to_load(kQemuLimit));
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
  TRY_ASSIGN(const auto receiver, engine::Receiver::start(memory, std::move(connections)));
  TRY(expect<engine::GuestStopped>(receiver->next()));
  announce(qemu);
  TRY_ASSIGN(const auto state, expect<engine::DeviceState>(receiver->next()));
  break_point("destination.load");
  const Instant began = sys::boot_now();
  const std::string_view bytes(reinterpret_cast<const char*>(state.bytes.data()), state.bytes.size());
  if (const Status loaded = monitor->load_devices(bytes, kLoadLimit); !loaded.ok()) {
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

}  // namespace hf::motion
