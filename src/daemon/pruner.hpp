#pragma once
// Pruner: keeps the store small. On the leader, now and then, the oldest events and ended tasks beyond a limit are
// erased. Owns one thread.
#include <condition_variable>
#include <mutex>
#include <thread>

#include "daemon/control.hpp"
#include "port/store.hpp"

namespace hf::daemon {

class Pruner {
 public:
  static constexpr std::size_t kEventsMax = 10'000;
  static constexpr std::size_t kTasksMax = 1'000;

  // All must outlive this.
  Pruner(Store& store, const Control& control);
  ~Pruner();

 private:
  void run();

  Store& store_;
  const Control& control_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::thread thread_;
};

// Erases the oldest events beyond `events_max` and the oldest ended tasks beyond `tasks_max`. Both ids of events and
// creation times of tasks are times; a task under way is never erased.
Status prune(Store& store, std::size_t events_max, std::size_t tasks_max);

}  // namespace hf::daemon
