#pragma once
// Destination: the process of the host that a VM comes to. Puts memory and devices into a QEMU that waits for them, and
// says so. It never lets the guest run: that is holdfastd's, after the commit. One thread, and what the engine and the
// tunnel have.
#include <memory>

#include "engine/receiver.hpp"
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

  void announce(int qemu) const;

  Master& master_;
  const Receive order_;
  const std::shared_ptr<engine::Failure> failure_ = std::make_shared<engine::Failure>();
};

}  // namespace hf::motion
