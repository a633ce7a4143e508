#pragma once
// WorkerPool: a fixed number of threads for work that blocks (store calls, QEMU, files). Work is started in the order
// it was given; a full queue is a broken invariant (nothing here produces work without bound). The destructor
// finishes the queue.
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace hf::daemon {

class WorkerPool {
 public:
  static constexpr std::size_t kQueueMax = 50'000;

  // name: of the threads, 12 characters at most.
  WorkerPool(const std::string& name, int threads);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  void submit(std::function<void()> work);

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<std::function<void()>> queue_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace hf::daemon
