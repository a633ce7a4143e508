#pragma once
// Mailbox: the one way into the control thread. Any thread posts events; the control thread takes them in order.
// Bounded: past kEventsMax the process stops, because a control thread that is so far behind must not decide anything.
#include <condition_variable>
#include <mutex>
#include <utility>
#include <vector>

#include "base/ensure.hpp"
#include "core/ha/events.hpp"

namespace hf::daemon {

class Mailbox {
 public:
  static constexpr std::size_t kEventsMax = 100'000;

  void post(ha::Event event) {
    std::lock_guard lock(mutex_);
    ENSURE(events_.size() < kEventsMax, "the control thread does not keep up");
    events_.push_back(std::move(event));
    arrived_.notify_one();
  }

  // All waiting events, or none after `patience` (any clock's time will do here).
  std::vector<ha::Event> take(Duration patience) {
    std::unique_lock lock(mutex_);
    arrived_.wait_for(lock, patience, [this] { return !events_.empty(); });
    return std::exchange(events_, {});
  }

 private:
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::vector<ha::Event> events_;
};

}  // namespace hf::daemon
