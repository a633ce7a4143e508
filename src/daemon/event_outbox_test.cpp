// Goal: an event reaches the store once, however long the store is away and whatever replies are lost.
// Method: the outbox on a store in memory that fails as it is told.
#include "daemon/event_outbox.hpp"

#include <gtest/gtest.h>

#include <atomic>

#include "sim/memory_store.hpp"

namespace hf::daemon {
namespace {

class FailingStore : public Store {
 public:
  Result<Snapshot> list(const std::string& prefix) override { return inner.list(prefix); }
  Result<Entry> get(const std::string& at) override { return inner.get(at); }
  Result<Committed> commit(const Txn& txn) override {
    ++tries;
    const int left = failures.fetch_sub(1);
    if (left > 0 && !does_it) return Error{Code::unavailable, "Not reachable."};
    auto done = inner.commit(txn);
    if (left > 0) return Error{Code::outcome_unknown, "The reply was lost."};
    writes += done.ok() && done->done ? 1 : 0;
    return done;
  }
  Result<LeaseId> grant(std::chrono::seconds ttl) override { return inner.grant(ttl); }
  Status keep_alive(LeaseId lease) override { return inner.keep_alive(lease); }
  Status revoke(LeaseId lease) override { return inner.revoke(lease); }
  Result<std::unique_ptr<Watch>> watch(const std::string& prefix, Watcher& watcher) override {
    return inner.watch(prefix, watcher);
  }
  sim::MemoryStore inner;
  std::atomic<int> failures = 0, tries = 0, writes = 0;
  bool does_it = false;  // and does not say so
};

record::EventRecord event(const std::string& id) {
  record::EventRecord made;
  made.id = id;
  made.kind = "ha.host.dead";
  return made;
}

// The ids in the store, once there are `count`.
std::vector<std::string> ids(Store& store, std::size_t count) {
  std::vector<std::string> found;
  for (int tries = 0; tries < 1000 && found.size() < count; ++tries) {
    found.clear();
    const auto events = store.list(record::key::kEvents);
    for (const auto& entry : events->entries) found.push_back(entry.key);
    std::this_thread::sleep_for(10ms);
  }
  return found;
}

TEST(EventOutbox, events_wait_for_a_store_that_is_away_and_keep_their_order) {
  FailingStore store;
  store.failures = 3;
  EventOutbox outbox(store, 1ms);
  outbox.add(event("1"));
  outbox.add(event("2"));
  EXPECT_EQ(ids(store, 2), (std::vector<std::string>{"events/1", "events/2"}));
  EXPECT_LT(store.get("events/1")->version, store.get("events/2")->version);
}

TEST(EventOutbox, an_event_whose_reply_was_lost_is_written_once) {
  FailingStore store;
  store.failures = 1;
  store.does_it = true;
  {
    EventOutbox outbox(store, 1ms);
    outbox.add(event("1"));
    outbox.add(event("2"));
    EXPECT_EQ(ids(store, 2).size(), 2u);
  }
  EXPECT_EQ(store.writes, 1);  // the second one's; the first was refused when it was sent again
  EXPECT_EQ(store.tries, 3);
}

TEST(EventOutbox, its_end_does_not_wait_for_a_store_that_stays_away) {
  FailingStore store;
  store.failures = 1'000'000'000;
  {
    EventOutbox outbox(store, Duration(1h));
    outbox.add(event("1"));
  }
  EXPECT_TRUE(store.list(record::key::kEvents)->entries.empty());
}

}  // namespace
}  // namespace hf::daemon
