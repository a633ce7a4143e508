#pragma once
// DiskSender: the disks that go along, at the source: the guest's QEMU mirrors them (sys/qemu/disk_copy.hpp) to the
// servers of the destination, through the motion's tunnel. Before the memory; from then on each write of the guest's is
// in both images before the guest is told, so it is as fast as the link. One thread drives it; the tunnel has its own.
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/tunnel.hpp"
#include "motion/leg.hpp"

namespace hf::motion {

class DiskSender {
 public:
  // `options`: of the tunnel. All must outlive it. Code::no_room.
  static Result<std::unique_ptr<DiskSender>> start(const Send& order, qemu::EngineMonitor& monitor,
                                                   const engine::TunnelOptions& options,
                                                   std::shared_ptr<engine::Failure> failure);
  // The guest goes on with its own images, if finish() has not been called.
  ~DiskSender();

  // Until the images are equal, but for what is under way. `show`: now and then; bytes.
  using Show = std::function<void(std::uint64_t left, std::uint64_t all)>;
  Status copy(const Show& show);
  // They still are. REQUIRES: copy().
  Status check();
  // What the disks may use of the link from now on; 0: no limit.
  void limit(std::uint64_t bytes_per_second) { tunnel_->limit(bytes_per_second); }
  // The new images are equal to the old ones, on their storage, and closed; this QEMU writes its own alone again.
  // REQUIRES: the guest stands still.
  Status finish();
  std::uint64_t bytes() const { return tunnel_->traffic().sent; }

 private:
  DiskSender(const Send& order, qemu::EngineMonitor& monitor, std::shared_ptr<engine::Failure> failure);
  Status begin();
  Result<CopyState> look();
  Status wait_held();
  Status end();

  const Send& order_;
  qemu::EngineMonitor& monitor_;
  const std::shared_ptr<engine::Failure> failure_;
  // The tunnel's own: whoever calls the motion off does not cut QEMU's connections by that.
  const std::shared_ptr<engine::Failure> link_ = std::make_shared<engine::Failure>();
  std::unique_ptr<engine::TunnelEntrance> tunnel_;
  bool copies_ = false;
};

}  // namespace hf::motion
