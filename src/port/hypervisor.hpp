#pragma once
// Hypervisor: the QEMU processes of this host. Real: sys/qemu. The decisions (when to start, stop, kill) are
// core/ha's.
//
// A VM's QEMU belongs to nobody's process tree: it outlives the daemon. All that is needed to find it again
// stands in its run directory (<run>/vms/<vm>/: launch.json with epoch, pid and start time; sockets; hold
// page; console.log). Thread-safe; calls block; each names its time limit.
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.hpp"
#include "base/result.hpp"
#include "base/time.hpp"
#include "core/vm/qemu_command.hpp"
#include "core/vm/spec.hpp"

namespace hf {

struct LaunchRequest {
  VmId vm;
  Epoch epoch;
  vm::VmSpec spec;
  // Mount path of each datastore this VM names, by datastore name; bridge and VLAN of each network it names,
  // by name.
  std::vector<std::pair<std::string, std::string>> datastore_paths;
  struct Bridge {
    std::string network, bridge;
    int vlan = 0;
  };
  std::vector<Bridge> bridges;
  TaskId motion;  // a vMotion: the guest comes from another host; empty: it boots
};

// What a QEMU's guest does, as far as QEMU says.
enum class GuestState {
  waits_for_memory,  // incoming, and nothing was loaded yet
  stopped,           // loaded or once running; stands still
  running,
  held,     // QEMU has stopped it by itself: a disk error, a panic, its end
  unknown,  // QEMU does not answer: its VM may be frozen
};

// A QEMU process that exists, found or started.
struct RunningVm {
  VmId vm;
  Epoch epoch;
  int pid = 0;
  std::string cgroup;     // absolute path of its cgroup v2 directory
  std::string hold_page;  // path of the page whose deadline the shim obeys (doc/formats.md)
  std::string accelerator;
  std::string memory_tracker;
  TaskId motion;                           // as in its LaunchRequest
  GuestState guest = GuestState::stopped;  // when it was found or launched
};

enum class ExitKind { guest_shutdown, guest_panic, qemu_crash, killed };
struct VmExit {
  VmId vm;
  Epoch epoch;
  ExitKind kind = ExitKind::qemu_crash;
  std::string text;  // last lines of QEMU's stderr where it crashed
  TaskId motion;     // as in its LaunchRequest
};

// QEMU holds a guest, or lets it go on.
struct VmPause {
  VmId vm;
  Epoch epoch;
  // Why it is held; none: it goes on.
  struct DiskError {
    std::string disk;      // its name in the spec
    bool no_room = false;  // the datastore is full
    std::string text;      // the system's words
  };
  std::optional<DiskError> error;
};

// The disks of a running VM that get other images (core/motion/relocator.hpp), or are copied to those of another host.
// The images are there, empty, of the same size.
struct CopyRequest {
  VmId vm;
  TaskId id;  // names its jobs, so that they are found again
  struct Disk {
    std::string name;  // its name in the spec; vm::kSeedName: the seed
    std::string path;  // of the new image; is_remote: of the socket of an NBD server, which has it as export `name`
    vm::DiskFormat format = vm::DiskFormat::qcow2;  // is_remote: the server's business
    bool is_remote = false;
  };
  std::vector<Disk> disks;
  std::uint64_t bytes_per_second = 0;  // 0: no limit
};

struct CopyState {
  enum class Phase { none, copying, ready, held, failed };  // of the disk that is least far
  Phase phase = Phase::none;
  std::uint64_t done_bytes = 0, all_bytes = 0;
  std::string error;  // failed
};

class Hypervisor {
 public:
  virtual ~Hypervisor() = default;

  // Called from a thread of the hypervisor, once for each QEMU that ended, whoever ended it.
  using OnExit = std::function<void(const VmExit&)>;
  // Called from any thread of the hypervisor, also before adopt() returns: a disk's I/O failed and QEMU holds the guest
  // until it is continued; it does so again when it was continued in vain. Also told of a VM that was held when it was
  // adopted.
  using OnPause = std::function<void(const VmPause&)>;
  // Finds what runs already (after a daemon restart) and watches it. Call once, before the others. What was launched
  // to boot and never resumed is ended; an incoming VM is not: it may have been committed to this host.
  virtual Result<std::vector<RunningVm>> adopt(OnExit on_exit, OnPause on_pause) = 0;

  // In two steps, so that the guard can admit the VM before its first instruction: `launch` makes run
  // directory, cgroup, taps and hold page (deadline 0: every disk write is held) and starts QEMU with the
  // guest stopped (-S); `resume` lets it run. launch: Code::failed with QEMU's own words if it does not come
  // up within 10 s; then nothing is left behind.
  virtual Result<RunningVm> launch(const LaunchRequest& request) = 0;
  // Code::denied: it was found, but an earlier daemon had never let it run: kill it.
  // An incoming VM: once its memory and devices are loaded, else Code::conflict. Soon afterwards the networks are told
  // where it is.
  virtual Status resume(const VmId& vm) = 0;
  // Lets a guest that a disk error paused try again; what comes of it is told by OnPause. Nothing happens to one that
  // is not paused by a disk error, above all to one that was launched and not resumed. Code::not_found,
  // Code::conflict: that epoch does not run here.
  virtual Status continue_paused(const VmId& vm, Epoch epoch) = 0;

  // A running VM's disks are copied to new images; from `ready` on, the guest's writes go to both. All or nothing.
  virtual Status begin_copy(const CopyRequest& request) = 0;
  virtual Result<CopyState> copy_state(const VmId& vm, const TaskId& id) = 0;
  // REQUIRES: ready. `held`: both images are equal and on their storage, and no request of the guest's reaches them
  // until end_copy. A QEMU that ends meanwhile writes nothing either. Code::timed_out: it is not so yet; copy_state
  // tells when.
  virtual Status hold_copy(const VmId& vm, const TaskId& id) = 0;
  // The guest goes on with the new images (REQUIRES: held) or the old ones, and QEMU has closed the others. May come
  // again. Fine where that copy is not known. Returns when the guest's requests went on. Code::failed: it does not use
  // the images that it should: kill it. Any other error: not settled yet, try again.
  virtual Result<Instant> end_copy(const VmId& vm, const TaskId& id, bool use_new) = 0;

  // Guest agent's shutdown, else ACPI power button; returns when asked, not when done.
  virtual Status ask_to_stop(const VmId& vm) = 0;
  // SIGKILL to everything in the VM's cgroup; returns when all is gone and cleaned up (works on a frozen
  // cgroup).
  virtual Status kill(const VmId& vm) = 0;
  // A guest that a disk error paused boots as well.
  virtual Status reset(const VmId& vm) = 0;
  // The stream socket of the serial console, connected. One reader at a time gets the bytes.
  virtual Result<int> open_console(const VmId& vm) = 0;
  // The last bytes the guest wrote to its console.
  virtual Result<std::string> console_tail(const VmId& vm, std::size_t bytes_max) = 0;
};

}  // namespace hf
