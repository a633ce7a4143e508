#include "daemon/event_outbox.hpp"

#include <pthread.h>

#include <utility>

#include "base/log.hpp"

namespace hf::daemon {

EventOutbox::EventOutbox(Store& store, Duration retry) : store_(store), retry_(retry), thread_([this] { run(); }) {}

EventOutbox::~EventOutbox() {
  {
    const std::scoped_lock lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void EventOutbox::add(record::EventRecord event) {
  {
    const std::scoped_lock lock(mutex_);
    if (waiting_.size() >= kWaitingMax) {
      log(Level::warn, "An event was not written: too many wait for the store.", {{"event", waiting_.front().kind}});
      waiting_.pop_front();
    }
    waiting_.push_back(std::move(event));
  }
  changed_.notify_all();
}

void EventOutbox::run() {
  ::pthread_setname_np(::pthread_self(), "hf-events");
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return ending_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    const record::EventRecord event = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    const bool written = write(event);
    lock.lock();
    if (written) continue;
    if (ending_) return;
    waiting_.push_front(event);
    changed_.wait_for(lock, retry_, [this] { return ending_; });
  }
}

bool EventOutbox::write(const record::EventRecord& event) {
  Txn txn;
  const std::string at = record::key::kEvents + event.id;
  txn.conditions.push_back({at, 0});
  txn.writes.push_back({at, record::encode(event), LeaseId{}, false});
  const auto written = store_.commit(txn);  // refused: an earlier try was done
  if (written.ok()) return true;
  const bool may_pass = written.code() == Code::unavailable || written.code() == Code::outcome_unknown ||
                        written.code() == Code::timed_out;
  log(may_pass ? Level::debug : Level::warn, "An event was not written.", {{"why", written.error().what}});
  return !may_pass;
}

}  // namespace hf::daemon
