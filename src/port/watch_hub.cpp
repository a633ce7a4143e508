#include "port/watch_hub.hpp"

#include "base/ensure.hpp"

namespace hf {

class WatchHub::HubWatch final : public Watch {
 public:
  HubWatch(WatchHub& hub, std::uint64_t listener) : hub_(hub), listener_(listener) {}
  ~HubWatch() override { hub_.remove(listener_); }
  HubWatch(const HubWatch&) = delete;
  HubWatch& operator=(const HubWatch&) = delete;

 private:
  WatchHub& hub_;
  std::uint64_t listener_;
};

WatchHub::WatchHub() : thread_([this] { run(); }) {}

WatchHub::~WatchHub() {
  {
    std::lock_guard lock(mutex_);
    ENSURE(listeners_.empty(), "a watch outlives its store");
    ending_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

std::unique_ptr<Watch> WatchHub::add(const std::string& prefix, Watcher& watcher, Snapshot present) {
  std::lock_guard lock(mutex_);
  const std::uint64_t id = next_++;
  listeners_.emplace(id, Listener{prefix, &watcher});
  queue_.push_back({id, [snapshot = std::move(present)](Watcher& to) { to.on_reset(snapshot); }});
  wake_.notify_all();
  return std::make_unique<HubWatch>(*this, id);
}

void WatchHub::publish(const std::vector<Change>& changes, Version version) {
  std::lock_guard lock(mutex_);
  for (const auto& [id, listener] : listeners_) {
    std::vector<Change> seen;
    for (const auto& change : changes)
      if (change.entry.key.starts_with(listener.prefix)) seen.push_back(change);
    if (seen.empty()) continue;
    queue_.push_back({id, [seen = std::move(seen), version](Watcher& to) { to.on_changes(seen, version); }});
  }
  wake_.notify_all();
}

void WatchHub::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return ending_ || !queue_.empty(); });
    if (ending_) return;
    Item item = std::move(queue_.front());
    queue_.pop_front();
    const auto found = listeners_.find(item.listener);
    if (found == listeners_.end()) continue;
    Watcher& watcher = *found->second.watcher;
    calling_ = item.listener;
    lock.unlock();
    item.call(watcher);
    lock.lock();
    calling_ = 0;
    idle_.notify_all();
  }
}

void WatchHub::remove(std::uint64_t listener) {
  std::unique_lock lock(mutex_);
  listeners_.erase(listener);
  // A watcher that ends its own watch from within a call would wait for itself.
  if (std::this_thread::get_id() == thread_.get_id()) return;
  idle_.wait(lock, [this, listener] { return calling_ != listener; });
}

}  // namespace hf
