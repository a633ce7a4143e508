#pragma once
// TestingStore: the store in memory for the tests of src/api and src/cli. Thread-safe but for its two settings:
// `faults` makes the next commits misbehave, `before_commit` writes in between.
#include <deque>
#include <functional>
#include <utility>

#include "base/ensure.hpp"
#include "sim/memory_store.hpp"

namespace hf::api {

class TestingStore final : public Store {
 public:
  enum class Fault { none, unavailable, reply_lost, request_lost };
  // One commit each, in order. reply_lost: done, but answered outcome_unknown; request_lost: not done.
  std::deque<Fault> faults;
  // Runs once just before the next commit: somebody else's write in between.
  std::function<void()> before_commit;

  Result<Snapshot> list(const std::string& prefix) override { return store_.list(prefix); }
  Result<Entry> get(const std::string& key) override { return store_.get(key); }
  Result<Committed> commit(const Txn& txn) override {
    if (const auto hook = std::exchange(before_commit, nullptr)) hook();
    Fault fault = Fault::none;
    if (!faults.empty()) {
      fault = faults.front();
      faults.pop_front();
    }
    if (fault == Fault::unavailable) return Error{Code::unavailable, "The store cannot be reached."};
    if (fault == Fault::request_lost) return Error{Code::outcome_unknown, "The reply was lost."};
    auto committed = store_.commit(txn);
    if (fault == Fault::reply_lost) return Error{Code::outcome_unknown, "The reply was lost."};
    return committed;
  }
  Result<LeaseId> grant(std::chrono::seconds ttl) override { return store_.grant(ttl); }
  Status keep_alive(LeaseId lease) override { return store_.keep_alive(lease); }
  Status revoke(LeaseId lease) override { return store_.revoke(lease); }
  Result<std::unique_ptr<Watch>> watch(const std::string& prefix, Watcher& watcher) override {
    return store_.watch(prefix, watcher);
  }
  // Writes without condition.
  void put(const std::string& key, const std::string& value) {
    ENSURE(commit({{}, {{key, value, {}, false}}}).ok(), "the store in memory writes");
  }
  void erase(const std::string& key) {
    ENSURE(commit({{}, {{key, "", {}, true}}}).ok(), "the store in memory erases");
  }

 private:
  sim::MemoryStore store_;
};

}  // namespace hf::api
