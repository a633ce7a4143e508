#include "daemon/pruner.hpp"

#include <pthread.h>

#include <algorithm>

#include "api/operations.hpp"
#include "base/log.hpp"

namespace hf::daemon {
namespace {

constexpr Duration kEvery = 10min;
constexpr std::size_t kKeysOfATxn = 100;  // the store takes at most 128 (port/store_limits.hpp)

Status erase_all(Store& store, const std::vector<std::string>& keys) {
  for (std::size_t begin = 0; begin < keys.size(); begin += kKeysOfATxn) {
    Txn txn;
    for (std::size_t i = begin; i < std::min(begin + kKeysOfATxn, keys.size()); ++i) {
      txn.writes.push_back({keys[i], "", LeaseId{}, true});
    }
    auto erased = store.commit(txn);
    if (!erased.ok()) return erased.error();
  }
  return {};
}

Status prune_events(Store& store, std::size_t max) {
  TRY_ASSIGN(const Snapshot events, store.list(record::key::kEvents));
  std::vector<std::string> old;
  for (std::size_t i = 0; i + max < events.entries.size(); ++i) old.push_back(events.entries[i].key);
  return erase_all(store, old);
}

Status prune_tasks(Store& store, std::size_t max) {
  TRY_ASSIGN(const Snapshot tasks, store.list(record::key::kTasks));
  std::vector<std::pair<WallMs, std::string>> ended;
  for (const auto& entry : tasks.entries) {
    auto task = record::decode<record::TaskRecord>(entry.value);
    if (!task.ok()) continue;
    if (api::is_final(*task)) ended.emplace_back(task->created, entry.key);
  }
  std::sort(ended.begin(), ended.end());
  std::vector<std::string> old;
  for (std::size_t i = 0; i + max < ended.size(); ++i) old.push_back(ended[i].second);
  return erase_all(store, old);
}

}  // namespace

Status prune(Store& store, std::size_t events_max, std::size_t tasks_max) {
  TRY(prune_events(store, events_max));
  return prune_tasks(store, tasks_max);
}

Pruner::Pruner(Store& store, const Control& control) : store_(store), control_(control), thread_([this] { run(); }) {
  pthread_setname_np(thread_.native_handle(), "hf-pruner");
}

Pruner::~Pruner() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Pruner::run() {
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, kEvery, [this] { return stopping_; })) {
    lock.unlock();
    if (control_.status().leader) {
      const Status pruned = prune(store_, kEventsMax, kTasksMax);
      if (!pruned.ok()) log(Level::warn, "Old events and tasks were not erased.", {{"why", pruned.error().what}});
    }
    lock.lock();
  }
}

}  // namespace hf::daemon
