#include "sys/datastore/call_worker.hpp"

#include <condition_variable>
#include <mutex>
#include <thread>

namespace hf::datastore {

struct CallWorker::State {
  std::mutex mutex;
  std::condition_variable changed;
  std::function<void()> job;  // waiting or running
  std::uint64_t accepted = 0, finished = 0;
  bool closing = false;
};

CallWorker::CallWorker() : state_(std::make_shared<State>()) {
  std::thread([state = state_] {
    std::unique_lock lock(state->mutex);
    for (;;) {
      state->changed.wait(lock, [&] { return state->closing || state->job; });
      if (!state->job) return;
      const auto job = std::exchange(state->job, nullptr);
      lock.unlock();
      job();
      lock.lock();
      ++state->finished;
      state->changed.notify_all();
    }
  }).detach();
}

CallWorker::~CallWorker() {
  const std::lock_guard lock(state_->mutex);
  state_->closing = true;
  state_->changed.notify_all();
}

bool CallWorker::stuck() const {
  const std::lock_guard lock(state_->mutex);
  return state_->accepted != state_->finished;
}

Status CallWorker::run_job(Duration patience, std::function<void()> job) {
  const auto until = std::chrono::steady_clock::now() + patience;
  std::unique_lock lock(state_->mutex);
  const auto idle = [&] { return state_->accepted == state_->finished; };
  if (!state_->changed.wait_until(lock, until, idle)) {
    return Error{Code::timed_out, "The datastore does not answer: an earlier call still waits for it."};
  }
  const std::uint64_t mine = ++state_->accepted;
  state_->job = std::move(job);
  state_->changed.notify_all();
  if (!state_->changed.wait_until(lock, until, [&] { return state_->finished >= mine; })) {
    return Error{Code::timed_out, "The datastore does not answer."};
  }
  return {};
}

}  // namespace hf::datastore
