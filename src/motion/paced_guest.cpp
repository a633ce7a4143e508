#include "motion/paced_guest.hpp"

#include <pthread.h>

#include <chrono>

#include "sys/process/clock.hpp"

namespace hf::motion {
namespace {
constexpr Duration kPeriod = 10ms;
constexpr Duration kCommandLimit = 10s;  // QMP `stop` waits for the guest's I/O

Duration part(double share) {
  return std::chrono::round<Duration>(std::chrono::duration<double, std::nano>(kPeriod) * share);
}

}  // namespace

PacedGuest::PacedGuest(qemu::EngineMonitor& monitor) : monitor_(monitor) {
  thread_ = std::thread([this] { pace(); });
}

PacedGuest::~PacedGuest() {
  {
    const std::scoped_lock lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void PacedGuest::pace() {
  ::pthread_setname_np(::pthread_self(), "hf-pace");
  std::unique_lock lock(mutex_);
  while (!ending_) {
    changed_.wait(lock, [this] { return ending_ || (!held_ && share_ < 1 && trouble_.ok()); });
    if (ending_) return;
    trouble_ = stop_locked();
    changed_.wait_for(lock, part(1 - share_), [this] { return ending_ || held_; });
    if (held_) continue;  // it is stopped, as it shall be
    if (trouble_.ok()) trouble_ = run_locked();
    changed_.wait_for(lock, part(share_), [this] { return ending_ || held_; });
  }
}

Status PacedGuest::stop_locked() {
  if (!runs_) return {};
  // From before the command: nobody knows when in it the guest was stopped.
  const Instant now = sys::boot_now();
  TRY(monitor_.stop(kCommandLimit));
  runs_ = false;
  stopped_since_ = now;
  return {};
}

Status PacedGuest::run_locked() {
  // Also where we believe that it runs: an answer may have been lost.
  TRY(monitor_.run(kCommandLimit));
  if (!runs_) stopped_ += sys::boot_now() - stopped_since_;
  runs_ = true;
  return {};
}

Status PacedGuest::hold() {
  const std::scoped_lock lock(mutex_);
  TRY(trouble_);
  held_ = true;
  changed_.notify_all();
  return stop_locked();
}

Status PacedGuest::release() {
  const std::scoped_lock lock(mutex_);
  TRY(run_locked());
  held_ = false;
  trouble_ = Status();
  changed_.notify_all();
  return {};
}

void PacedGuest::set_share(double share) {
  const std::scoped_lock lock(mutex_);
  share_ = share;
  changed_.notify_all();
}

Duration PacedGuest::standing() {
  const std::scoped_lock lock(mutex_);
  return runs_ ? 0ns : sys::boot_now() - stopped_since_;
}

Duration PacedGuest::stopped() {
  const std::scoped_lock lock(mutex_);
  return runs_ ? stopped_ : stopped_ + (sys::boot_now() - stopped_since_);
}

}  // namespace hf::motion
