#pragma once
// QemuCopy: a source's guest copied by QEMU's own migration, memory and devices, through the motion's tunnel; in place
// of the rounds, scans and saves of Holdfast's engine. Whose the guest is stays the Source's question (source.hpp).
//
// Whoever moves a guest so leaves to QEMU when it stops (when what is left fits into the stop at the speed so far) and
// how it is slowed down (auto-converge). How long the stop may be, and when it is given up: core/motion/qemu_pacing.
//
// One thread drives it; "hf-control" waits for the destination's words, the tunnel has threads of its own.
#include <functional>
#include <future>
#include <memory>
#include <thread>

#include "core/motion/qemu_pacing.hpp"
#include "engine/stream/control.hpp"
#include "engine/tunnel.hpp"
#include "motion/leg.hpp"

namespace hf::motion {

class QemuCopy {
 public:
  // Connects to the destination. `monitor` and `order` must outlive it.
  static Result<std::unique_ptr<QemuCopy>> start(const Send& order, qemu::EngineMonitor& monitor,
                                                 std::shared_ptr<engine::Failure> failure);

  ~QemuCopy();

  struct Course {
    std::function<void(const Progress&)> show;  // now and then
    std::function<void()> on_stop;              // the guest has just been stopped for the last copy
  };
  // Until the guest stands still and the destination has loaded all of it. `done`: what it took.
  Status run(const Course& course, Finished& done);
  // The guest runs on here, and QEMU is as it was before.
  // safety: REQUIRES: this host has the right to run the VM.
  Status give_back();
  void tell_committed(std::uint64_t version);
  // The destination is told.
  void abort(const std::string& why);
  std::uint64_t bytes() const { return tunnel_->traffic().sent; }

 private:
  QemuCopy(const Send& order, qemu::EngineMonitor& monitor, engine::Connections connections,
           engine::ConnectionOptions options);
  Status copy(const Course& course, Finished& done);
  Status look(const Course& course, Finished& done);
  Error better_known(const Error& why);

  const Send& order_;
  qemu::EngineMonitor& monitor_;
  engine::Connections connections_;
  engine::stream::Control control_;
  std::unique_ptr<engine::TunnelEntrance> tunnel_;
  const Instant began_;
  QemuPacing pacing_;
  Instant looked_at_{};
  std::uint64_t bytes_before_ = 0;
  std::promise<Status> answered_;  // by the destination: it has loaded, or why not
  std::future<Status> answer_;
  std::jthread listener_;  // last: it uses all of the above
};

}  // namespace hf::motion
