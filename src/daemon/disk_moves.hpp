#pragma once
// DiskMoves: the hands of core/motion/relocator.hpp: makes the new images of a VM, has its QEMU (or qemu-img, where it
// is off) copy into them, and settles that: images changed or not, files deleted. A thread of its own for each copy
// ("hf-copy"), of which the leader's limits allow two; the rest on small pools. Thread-safe; no call blocks.
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "core/ha/events.hpp"
#include "daemon/mailbox.hpp"
#include "daemon/surroundings.hpp"
#include "daemon/worker_pool.hpp"
#include "port/hypervisor.hpp"

namespace hf::daemon {

class DiskMoves {
 public:
  // All must outlive this.
  DiskMoves(HostId self, Hypervisor& hypervisor, const SharedSurroundings& surroundings, Mailbox& mailbox)
      : self_(std::move(self)), hypervisor_(hypervisor), surroundings_(surroundings), mailbox_(mailbox) {}

  void carry_out(const ha::action::Copy& copy);
  void carry_out(const ha::action::SettleCopy& settle);

 private:
  struct Copying {
    std::mutex mutex;               // of what follows
    std::optional<Instant> hold_asked_at;
    std::jthread thread;            // last: it uses the above
  };
  using CopyingPtr = std::shared_ptr<Copying>;  // of the map and of whoever ends it

  void run(const ha::action::Copy& copy, Copying& copying, const std::stop_token& stop);
  Status make_images(const ha::action::Copy& copy, const vm::VmSpec& after, const std::stop_token& stop);
  Status copy_live(const ha::action::Copy& copy, const vm::VmSpec& after, Copying& copying,
                   const std::stop_token& stop);
  Status follow(const ha::action::Copy& copy, Copying& copying, const std::stop_token& stop);
  Status copy_home(const ha::action::Copy& copy, const vm::VmSpec& after);
  Status check_room(const ha::action::Copy& copy, const vm::VmSpec& after) const;
  Result<std::string> folder_of(const std::string& datastore, const VmId& vm) const;
  Result<std::string> mount_of(const std::string& datastore) const;
  void tell_held(const ha::action::Copy& copy, std::uint64_t bytes, Instant began);
  // Nullopt: this life of the daemon did not hold it.
  std::optional<Instant> stop_copying(const TaskId& id);
  // When the guest's requests went on.
  Result<Instant> settle_images(const ha::action::SettleCopy& settle);
  Status delete_files(const ha::action::SettleCopy& settle);

  const HostId self_;
  Hypervisor& hypervisor_;
  const SharedSurroundings& surroundings_;
  Mailbox& mailbox_;
  std::mutex mutex_;  // of the map
  std::map<TaskId, CopyingPtr> copyings_;
  WorkerPool images_{"hf-images", 4};    // the guest's disks wait for these
  WorkerPool deletions_{"hf-delete", 2}; // a datastore that hangs holds these up
};

}  // namespace hf::daemon
