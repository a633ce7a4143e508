#pragma once
// EngineMonitor: what a motion asks of one QEMU, over its second monitor (engine.sock): stop, run, save and load the
// state of the devices, or migrate by itself. It decides nothing. One thread at a time; every call has a time limit.
//
// Device state is all that a stopped VM is besides its RAM: QEMU's `xen-save-devices-state` writes it, and
// `migrate-incoming` reads it in a QEMU with `-incoming defer` (docs/interop/qemu-qmp-ref). Both run with
// `migration.send-configuration=off`. It goes through descriptors that are passed along with the command: QEMU's
// sandbox lets it start no program, and its user can open no file of ours.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "port/hypervisor.hpp"
#include "sys/process/unique_fd.hpp"
#include "sys/qemu/disk_copy.hpp"
#include "sys/qemu/qmp.hpp"

namespace hf::qemu {

// Each virtio device has 45 KiB: QEMU saves the 1024 queues that it could have, twice. A VM with one disk and one nic
// has 208 KiB.
inline constexpr std::size_t kDeviceStateMax = 32 << 20;

// What a QEMU does with its disk images once its state is saved. released: written back and closed for the other
// host; `run` takes them again.
enum class Images { kept, released };

// What QEMU's own migration shall keep to.
struct OwnMigrationLimits {
  Duration stop_max = std::chrono::milliseconds(20);  // its aim for the last copy of memory, devices not counted
  std::uint64_t bytes_per_second = 0;                 // until the guest stands still; 0: no limit
};
// How far it is. Pages of 4096 bytes.
struct OwnMigrationProgress {
  std::uint64_t rounds = 0;  // passes over what was written
  std::uint64_t zero_pages = 0, plain_pages = 0;
  std::uint64_t pages_left = 0, pages_all = 0;
  std::uint64_t pages_written_per_second = 0;  // by the guest; 0: not known yet
  std::uint64_t throttle_percent = 0;          // of its time that the guest is held back
  Duration stood{};                            // the guest, until all was sent, in QEMU's words; once it has completed
};

class EngineMonitor {
 public:
  // Code::unavailable if nobody listens there, Code::timed_out if QEMU does not answer.
  static Result<std::unique_ptr<EngineMonitor>> connect(const std::string& engine_socket, Duration limit);
  ~EngineMonitor();

  // GuestState::unknown if it does not answer within the limit.
  GuestState guest(Duration limit);

  // The guest stands still, its block I/O is drained, its disks are flushed. Repeating it is harmless.
  Status stop(Duration limit);
  // The guest runs on. It takes its images again if they were released.
  // safety: REQUIRES: the caller has the right to run the VM. Code::conflict if the guest's memory is not there yet.
  Status run(Duration limit);

  // Tells the networks where the guest is.
  Status announce(Duration limit);

  // The guest's disks, copied to the destination's.
  DiskCopy disk_copy(const TaskId& motion);

  // Once, before save_devices: all of it that can be done while the guest runs.
  Status prepare_to_save(Duration limit);
  // REQUIRES: prepare_to_save; the guest is stopped. Code::corrupt beyond kDeviceStateMax.
  Result<std::string> save_devices(Images images, Duration limit);

  // Once, before load_devices. QEMU waits for the state then, and touches nothing meanwhile; it ends by itself when
  // this object ends before the load. The disk images stay untouched until `run`, and nothing is sent to the networks.
  Status prepare_to_load(Duration limit);
  // Afterwards the guest is stopped and could run. Once. REQUIRES: prepare_to_load; all of RAM is in place.
  // Code::failed: this QEMU is of no further use (it ends by itself).
  Status load_devices(std::string_view state, Duration limit);

  // QEMU's own migration, memory and devices, over unix sockets; own_migration.cpp. It stops the guest by itself at the
  // end. If it fails or is cancelled before it has completed, QEMU lets the guest run on by itself; after that, `run`
  // does. Code::unsupported where it would damage the guest.
  //
  // Source: to where somebody listens at `socket`, over several connections. `is_emulated`: the guest, by TCG.
  Status migrate_to(const std::string& socket, const OwnMigrationLimits& limits, bool is_emulated, Duration limit);
  // Destination, once, instead of prepare_to_load: QEMU listens at `socket`. Its images and networks as there.
  Status prepare_to_receive(const std::string& socket, bool is_emulated, Duration limit);
  // Either side: has all of it been sent, or has come? Waits for that, or for the moment when the source stops its
  // guest, at most `limit`. Code::failed: in QEMU's words.
  Result<bool> has_migrated(Duration limit);
  // Source: when QEMU stopped the guest for the last copy.
  std::optional<Instant> stopped_at();
  Result<OwnMigrationProgress> own_progress(Duration limit);
  // Source: another OwnMigrationLimits::stop_max, while it goes on.
  Status aim_at_stop(Duration stop_max, Duration limit);
  // Source: nothing goes on any more, and the next motion finds QEMU as if there had been none. The guest runs, or, if
  // it had completed, stands still.
  Status end_migration(Duration limit);

 private:
  struct Migration;
  // Empty, for one writer that may only write: QEMU takes from a descriptor set the one opened as it wants to open it.
  struct StateFile {
    process::UniqueFd reader;
    process::UniqueFd writer;
    std::uint64_t set = 0;  // QEMU's number of the descriptor set
  };
  EngineMonitor(std::shared_ptr<Migration> migration, std::unique_ptr<QmpClient> monitor);
  Status command(std::string_view what, std::string_view arguments, Duration limit, int passed_fd = -1);
  Status wait_until_loaded(Instant deadline);
  Status refuse_if_it_loses_writes(bool is_emulated, Duration limit);
  std::string why_failed(Duration limit);

  const std::shared_ptr<Migration> migration_;  // the monitor's reader writes it
  const std::unique_ptr<QmpClient> monitor_;
  std::optional<StateFile> saved_;  // what QEMU saves to
  process::UniqueFd incoming_;      // what QEMU loads from
};

// Frames that show the switches where the guest's addresses are: at once and then less and less often, five in all.
Status announce_self(QmpClient& monitor, Duration limit);

// "prelaunch", "inmigrate", "paused", "running", ...; empty if QEMU does not answer.
std::string query_status(QmpClient& monitor, Duration limit);
GuestState guest_state(std::string_view status);

}  // namespace hf::qemu
