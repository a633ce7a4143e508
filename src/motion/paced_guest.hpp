#pragma once
// PacedGuest: a source's guest that runs, is held still, or runs for a share of the time only: stopped and resumed
// every 10 ms by its own thread ("hf-pace"), over QMP. (Not by the cgroup freezer, which is the guard's, nor by
// cpu.max, which the machine may not have.) Thread-safe. At its end the guest stays as it is.
#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/result.hpp"
#include "base/time.hpp"
#include "sys/qemu/engine_monitor.hpp"

namespace hf::motion {

class PacedGuest {
 public:
  // The guest runs. `monitor` outlives this and is used by nobody else, but while held.
  explicit PacedGuest(qemu::EngineMonitor& monitor);
  ~PacedGuest();

  // Afterwards the guest stands still, its I/O drained, until release().
  Status hold();
  // safety: REQUIRES: this host has the right to run the VM.
  Status release();
  // Of the time, (0, 1].
  void set_share(double share);
  // For how long it has stood still without a break; 0 while it runs. A guest that is paced may have been stopped
  // before hold() was called.
  Duration standing();
  // That the guest has stood still so far, in all.
  Duration stopped();

 private:
  void pace();
  Status stop_locked();
  Status run_locked();

  qemu::EngineMonitor& monitor_;
  std::mutex mutex_;  // of the monitor, and what follows
  std::condition_variable changed_;
  bool ending_ = false;
  bool held_ = false;
  bool runs_ = true;
  double share_ = 1;
  Status trouble_;  // of the pacing thread; told by the next hold()
  Instant stopped_since_{};
  Duration stopped_ = 0ns;
  std::thread thread_;
};

}  // namespace hf::motion
