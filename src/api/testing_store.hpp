#pragma once
// TestingStore: a Store in memory for the tests of src/api and src/cli, until sim::MemoryStore takes its
// place. Thread-safe. `fault` makes the next commits misbehave. Leases never end by themselves.
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "port/store.hpp"

namespace hf::api {

class TestingStore : public Store {
 public:
  enum class Fault { none, unavailable, reply_lost, request_lost };
  // Applied to one commit each, in order. reply_lost: done, but answered outcome_unknown; request_lost: not
  // done.
  std::deque<Fault> faults;
  // Runs once just before the next commit: somebody else's write in between.
  std::function<void()> before_commit;

  Result<Snapshot> list(const std::string& prefix) override {
    const std::scoped_lock lock(mutex_);
    return snapshot(prefix);
  }
  Result<Entry> get(const std::string& key) override {
    const std::scoped_lock lock(mutex_);
    const auto found = entries_.find(key);
    if (found == entries_.end()) return Error{Code::not_found, "No key " + key + "."};
    return found->second;
  }
  Result<Committed> commit(const Txn& txn) override {
    if (auto hook = std::exchange(before_commit, nullptr)) hook();
    const std::scoped_lock lock(mutex_);
    Fault fault = Fault::none;
    if (!faults.empty()) {
      fault = faults.front();
      faults.pop_front();
    }
    if (fault == Fault::unavailable) return Error{Code::unavailable, "The store cannot be reached."};
    if (fault == Fault::request_lost) return Error{Code::outcome_unknown, "The reply was lost."};
    const Committed committed = apply(txn);
    if (fault == Fault::reply_lost) return Error{Code::outcome_unknown, "The reply was lost."};
    return committed;
  }
  Result<LeaseId> grant(std::chrono::seconds) override { return LeaseId{1}; }
  Status keep_alive(LeaseId) override { return {}; }
  Status revoke(LeaseId) override { return {}; }

  Result<std::unique_ptr<Watch>> watch(const std::string& prefix, Watcher& watcher) override {
    const std::scoped_lock lock(mutex_);
    watcher.on_reset(snapshot(prefix));
    const int id = ++last_watch_;
    watchers_[id] = {prefix, &watcher};
    return std::unique_ptr<Watch>(std::make_unique<OwnWatch>(*this, id));
  }
  // Writes without condition.
  void put(const std::string& key, const std::string& value) {
    (void)commit({{}, {{key, value, {}, false}}});
  }
  void erase(const std::string& key) { (void)commit({{}, {{key, "", {}, true}}}); }

 private:
  struct OwnWatch : Watch {
    OwnWatch(TestingStore& store, int id) : store_(store), id_(id) {}
    ~OwnWatch() override {
      const std::scoped_lock lock(store_.mutex_);
      store_.watchers_.erase(id_);
    }
    TestingStore& store_;
    int id_;
  };
  Snapshot snapshot(const std::string& prefix) const {
    Snapshot out;
    out.version = version_;
    for (auto it = entries_.lower_bound(prefix); it != entries_.end() && it->first.starts_with(prefix);
         ++it) {
      out.entries.push_back(it->second);
    }
    return out;
  }
  Committed apply(const Txn& txn) {
    for (const auto& condition : txn.conditions) {
      const auto found = entries_.find(condition.key);
      if ((found == entries_.end() ? 0 : found->second.version) != condition.version) return {};
    }
    ++version_;
    for (const auto& write : txn.writes) {
      if (write.erase)
        entries_.erase(write.key);
      else
        entries_[write.key] = Entry{write.key, write.value, version_, write.lease};
      for (auto& [id, watcher] : watchers_) {
        if (!write.key.starts_with(watcher.first)) continue;
        watcher.second->on_changes({{{write.key, write.value, version_, write.lease}, write.erase}},
                                   version_);
      }
    }
    return {true, version_};
  }
  std::mutex mutex_;
  std::map<std::string, Entry> entries_;
  Version version_ = 0;
  int last_watch_ = 0;
  std::map<int, std::pair<std::string, Watcher*>> watchers_;
};

}  // namespace hf::api
