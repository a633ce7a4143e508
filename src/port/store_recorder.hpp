#pragma once
// For tests of stores: a watcher that writes down what it is told, and short ways to say a transaction.
// The recorder is called from the store's thread and read from the test's; wait() is the meeting point.
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "port/store.hpp"

namespace hf::contract {

// Writes down what a watch tells, and waits for it.
class Recorder final : public Watcher {
 public:
  void on_reset(const Snapshot& snapshot) override {
    note([&] {
      ++resets;
      lost = false;
      state.clear();
      for (const auto& entry : snapshot.entries) state[entry.key] = entry.value;
      version = snapshot.version;
    });
  }
  void on_changes(const std::vector<Change>& changes, Version at) override {
    note([&] {
      lost = false;
      if (at <= version) out_of_order = true;
      for (const auto& change : changes) {
        if (change.entry.version != at) out_of_order = true;
        if (change.erased)
          state.erase(change.entry.key);
        else
          state[change.entry.key] = change.entry.value;
        log.push_back((change.erased ? "-" : "+") + change.entry.key + "=" + change.entry.value);
      }
      version = at;
      batches.push_back(changes.size());
    });
  }
  void on_lost(const Error&) override {
    note([&] {
      lost = true;
      ++losses;
    });
  }
  // False after 60 s: a limit for a hung test, not a figure.
  bool wait(const std::function<bool(const Recorder&)>& until) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(60), [&] { return until(*this); });
  }
  bool wait_for_state(const std::map<std::string, std::string>& wanted) {
    return wait([&](const Recorder& seen) { return seen.resets > 0 && seen.state == wanted; });
  }

  // To be read inside wait(), or once the watch is over.
  std::map<std::string, std::string> state;
  std::vector<std::string> log;
  std::vector<std::size_t> batches;
  Version version = 0;
  int resets = 0;
  int losses = 0;
  bool lost = false;
  bool out_of_order = false;

 private:
  template <class Act>
  void note(Act act) {
    std::lock_guard lock(mutex_);
    act();
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
};

inline Txn put(const std::string& key, const std::string& value, LeaseId lease = {}) {
  return Txn{{}, {{key, value, lease, false}}};
}
inline Txn erase(const std::string& key) { return Txn{{}, {{key, "", {}, true}}}; }
inline Txn swap(const std::string& key, Version version, const std::string& value) {
  return Txn{{{key, version}}, {{key, value, {}, false}}};
}

}  // namespace hf::contract
