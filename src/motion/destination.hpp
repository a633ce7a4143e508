#pragma once
// Destination: the process of the host that a VM comes to. Puts memory and devices into a QEMU that waits for them, and
// says so. Disks that come along are written by servers of its own (disk_server.hpp). It never lets the guest run: that
// is holdfastd's, after the commit. One thread drives it, besides those of the engine, the tunnel and the servers.
#include <memory>

#include "engine/receiver.hpp"
#include "motion/disk_server.hpp"
#include "motion/leg.hpp"
#include "motion/master.hpp"

namespace hf::motion {

class Destination {
 public:
  Destination(Master& master, Receive order);
  // To the end. The exit status of the process: 0 after the source's word that it has committed.
  int run();

 private:
  Status receive();
  Status receive_pages(qemu::EngineMonitor& monitor, const qemu::RunDir& dir);
  // By QEMU's own migration, through a tunnel.
  Status receive_by_qemu(qemu::EngineMonitor& monitor, const qemu::RunDir& dir);

  Status serve_disks(const qemu::RunDir& dir);
  void announce(int qemu) const;

  Master& master_;
  const Receive order_;
  const std::shared_ptr<engine::Failure> failure_ = std::make_shared<engine::Failure>();
  std::vector<std::unique_ptr<DiskServer>> disks_;
};

}  // namespace hf::motion
