#pragma once
// The contract of Store as tests: every implementation runs them all. A test program includes this header
// once, defines a StoreWorld and says
//   INSTANTIATE_TEST_SUITE_P(Memory, StoreContract, ::testing::Values(StoreMaker{"memory", make_world}));
// Nothing here sleeps for a figure: a test polls for a condition, and judges times only where load cannot
// falsify them.
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "port/store_recorder.hpp"

namespace hf::contract {

// One backend, empty at first, and the time its leases are counted in.
class StoreWorld {
 public:
  virtual ~StoreWorld() = default;
  virtual Store& store() = 0;
  // Another client of the same backend; nullptr where a backend has one client only.
  virtual Store* second() = 0;
  virtual Instant now() = 0;
  // Lets a little time pass (some 20 ms): a manual clock moves, a real one is waited for.
  virtual void pass() = 0;
  // Ends the backend without warning and starts it again on what it has kept; store() is another object
  // afterwards. False: this backend keeps nothing.
  virtual bool restart() = 0;
};

struct StoreMaker {
  std::string name;
  std::function<std::unique_ptr<StoreWorld>()> make;
  friend void PrintTo(const StoreMaker& maker, std::ostream* out) { *out << maker.name; }
};

class StoreContract : public ::testing::TestWithParam<StoreMaker> {
 protected:
  void SetUp() override {
    world_ = GetParam().make();
    ASSERT_NE(world_, nullptr);
  }
  Store& store() { return world_->store(); }
  Version must_commit(const Txn& txn) {
    const auto committed = store().commit(txn);
    EXPECT_TRUE(committed.ok()) << committed.error().what;
    if (!committed.ok()) return 0;
    EXPECT_TRUE(committed->done);
    return committed->version;
  }
  bool exists(const std::string& key) {
    const auto found = store().get(key);
    if (!found.ok()) {
      EXPECT_EQ(found.code(), Code::not_found) << found.error().what;
    }
    return found.ok();
  }
  // Lets time pass until `done`; false after 120 s of the world's time.
  bool pass_until(const std::function<bool()>& done) {
    const Instant limit = world_->now() + 120s;
    while (!done()) {
      if (world_->now() > limit) return false;
      world_->pass();
    }
    return true;
  }
  std::unique_ptr<StoreWorld> world_;
};

TEST_P(StoreContract, get_returns_what_was_written) {
  EXPECT_EQ(store().get("a").code(), Code::not_found);
  const Version version = must_commit(put("a", std::string("x\0y", 3)));
  EXPECT_GT(version, 0);
  const auto found = store().get("a");
  ASSERT_TRUE(found.ok()) << found.error().what;
  EXPECT_EQ(*found, (Entry{"a", std::string("x\0y", 3), version, {}}));
}

TEST_P(StoreContract, versions_grow_with_every_write_also_after_an_erase) {
  const Version first = must_commit(put("a", "1"));
  const Version second = must_commit(put("a", "1"));
  const Version other = must_commit(put("b", "1"));
  must_commit(erase("a"));
  const Version again = must_commit(put("a", "1"));
  EXPECT_LT(first, second);
  EXPECT_LT(second, other);
  EXPECT_LT(other, again);
  EXPECT_EQ(store().get("a")->version, again);
  EXPECT_EQ(store().get("b")->version, other);
}

TEST_P(StoreContract, a_condition_on_the_version_decides) {
  const Version version = must_commit(put("a", "1"));
  const auto wrong = store().commit(swap("a", version + 1000, "2"));
  ASSERT_TRUE(wrong.ok());
  EXPECT_FALSE(wrong->done);
  EXPECT_EQ(store().get("a")->value, "1");
  const auto right = store().commit(swap("a", version, "2"));
  ASSERT_TRUE(right.ok());
  EXPECT_TRUE(right->done);
  EXPECT_GT(right->version, version);
  EXPECT_EQ(store().get("a")->value, "2");
  EXPECT_EQ(store().get("a")->version, right->version);
}

TEST_P(StoreContract, condition_zero_means_must_not_exist) {
  EXPECT_TRUE(store().commit(swap("a", 0, "1"))->done);
  EXPECT_FALSE(store().commit(swap("a", 0, "2"))->done);
  must_commit(erase("a"));
  EXPECT_TRUE(store().commit(swap("a", 0, "3"))->done);
  EXPECT_EQ(store().get("a")->value, "3");
}

TEST_P(StoreContract, a_condition_on_an_old_life_of_a_key_fails) {
  const Version before = must_commit(put("a", "1"));
  must_commit(erase("a"));
  EXPECT_FALSE(store().commit(swap("a", before, "2"))->done);
  must_commit(put("a", "1"));
  EXPECT_FALSE(store().commit(swap("a", before, "2"))->done);
}

TEST_P(StoreContract, all_conditions_hold_or_nothing_is_written) {
  const Version a = must_commit(put("a", "1"));
  const Version b = must_commit(put("b", "1"));
  Txn txn{{{"a", a}, {"b", b + 1000}, {"c", 0}}, {{"a", "2"}, {"b", "2"}, {"c", "2"}, {"d", "2"}}};
  EXPECT_FALSE(store().commit(txn)->done);
  EXPECT_EQ(store().list("")->entries.size(), 2u);
  txn.conditions[1].version = b;
  const auto done = store().commit(txn);
  ASSERT_TRUE(done->done);
  const auto all = store().list("");
  ASSERT_EQ(all->entries.size(), 4u);
  for (const auto& entry : all->entries) {
    EXPECT_EQ(entry.value, "2");
    EXPECT_EQ(entry.version, done->version);
  }
}

TEST_P(StoreContract, a_commit_without_writes_only_checks) {
  const Version version = must_commit(put("a", "1"));
  EXPECT_TRUE(store().commit(Txn{{{"a", version}}, {}})->done);
  EXPECT_FALSE(store().commit(Txn{{{"a", 0}}, {}})->done);
}

TEST_P(StoreContract, bad_transactions_are_invalid) {
  EXPECT_EQ(store().commit(Txn{{}, {{"a", "1"}, {"a", "2"}}}).code(), Code::invalid);
  EXPECT_EQ(store().commit(put("", "1")).code(), Code::invalid);
  EXPECT_EQ(store().commit(Txn{{{"a", -1}}, {}}).code(), Code::invalid);
  EXPECT_EQ(store().commit(put("a", std::string(2 << 20, 'x'))).code(), Code::invalid);
  EXPECT_EQ(store().grant(1s).code(), Code::invalid);
  EXPECT_TRUE(store().list("")->entries.empty());
}

TEST_P(StoreContract, list_is_ordered_and_keeps_to_the_prefix) {
  for (const char* key : {"vms/b", "vms", "vms/a", "vms0", "vmt", "vms/\xff", "vl", "vms/a/b"})
    must_commit(put(key, key));
  const auto listed = store().list("vms/");
  ASSERT_TRUE(listed.ok());
  std::vector<std::string> keys;
  for (const auto& entry : listed->entries) keys.push_back(entry.key);
  EXPECT_EQ(keys, (std::vector<std::string>{"vms/a", "vms/a/b", "vms/b", "vms/\xff"}));
  EXPECT_EQ(listed->version, store().get("vms/a/b")->version);
  EXPECT_EQ(store().list("\xff")->entries.size(), 0u);
  EXPECT_EQ(store().list("")->entries.size(), 8u);
}

TEST_P(StoreContract, erase_of_an_absent_key_is_no_error) {
  must_commit(erase("a"));
  must_commit(put("a", "1"));
  must_commit(erase("a"));
  EXPECT_FALSE(exists("a"));
}

TEST_P(StoreContract, a_lease_deletes_its_keys_after_its_ttl_and_never_earlier) {
  const Instant before = world_->now();
  const auto lease = store().grant(2s);
  ASSERT_TRUE(lease.ok()) << lease.error().what;
  must_commit(put("bound", "1", *lease));
  must_commit(put("free", "1"));
  EXPECT_EQ(store().get("bound")->lease, *lease);
  ASSERT_TRUE(pass_until([&] { return !exists("bound"); }));
  EXPECT_GE(world_->now() - before, 2s);
  EXPECT_TRUE(exists("free"));
  EXPECT_EQ(store().keep_alive(*lease).code(), Code::not_found);
  EXPECT_EQ(store().commit(put("late", "1", *lease)).code(), Code::not_found);
  EXPECT_FALSE(exists("late"));
}

TEST_P(StoreContract, keep_alive_prolongs) {
  const Instant start = world_->now();
  const auto lease = store().grant(2s);
  ASSERT_TRUE(lease.ok());
  must_commit(put("bound", "1", *lease));
  Instant sent = start;
  while (world_->now() - start < 5s) {
    const Instant before = world_->now();
    const Status kept = store().keep_alive(*lease);
    // A machine under load may be late; then the lease may have ended.
    if (world_->now() - sent >= 2s) GTEST_SKIP() << "the machine is too slow to keep a lease of 2 s";
    ASSERT_TRUE(kept.ok()) << kept.error().what;
    sent = before;
    const bool there = exists("bound");
    if (world_->now() - sent < 2s) {
      ASSERT_TRUE(there);
    }
    world_->pass();
  }
  ASSERT_TRUE(pass_until([&] { return !exists("bound"); }));
  EXPECT_GE(world_->now() - sent, 2s);
}

TEST_P(StoreContract, revoke_ends_a_lease_at_once) {
  const auto lease = store().grant(60s);
  ASSERT_TRUE(lease.ok());
  must_commit(put("a", "1", *lease));
  must_commit(put("b", "1", *lease));
  must_commit(put("b", "2"));  // no longer bound
  EXPECT_TRUE(store().revoke(*lease).ok());
  EXPECT_FALSE(exists("a"));
  EXPECT_TRUE(exists("b"));
  EXPECT_EQ(store().revoke(*lease).code(), Code::not_found);
  EXPECT_EQ(store().keep_alive(*lease).code(), Code::not_found);
}

TEST_P(StoreContract, leases_are_distinct) {
  const auto first = store().grant(60s);
  const auto second = store().grant(60s);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_NE(*first, *second);
  must_commit(put("a", "1", *first));
  must_commit(put("b", "1", *second));
  EXPECT_TRUE(store().revoke(*first).ok());
  EXPECT_FALSE(exists("a"));
  EXPECT_TRUE(exists("b"));
}

TEST_P(StoreContract, a_watch_begins_with_the_present_state_and_goes_on_in_order) {
  must_commit(put("w/a", "1"));
  Recorder seen;
  auto watch = store().watch("w/", seen);
  ASSERT_TRUE(watch.ok()) << watch.error().what;
  ASSERT_TRUE(seen.wait_for_state({{"w/a", "1"}}));
  must_commit(put("w/b", "2"));
  must_commit(put("w/a", "3"));
  must_commit(erase("w/b"));
  must_commit(put("w/c", "4"));
  ASSERT_TRUE(seen.wait_for_state({{"w/a", "3"}, {"w/c", "4"}}));
  watch->reset();
  EXPECT_EQ(seen.resets, 1);
  EXPECT_EQ(seen.log, (std::vector<std::string>{"+w/b=2", "+w/a=3", "-w/b=", "+w/c=4"}));
  EXPECT_FALSE(seen.out_of_order);
}

TEST_P(StoreContract, changes_of_one_commit_come_together) {
  Recorder seen;
  auto watch = store().watch("w/", seen);
  ASSERT_TRUE(watch.ok());
  ASSERT_TRUE(seen.wait_for_state({}));
  must_commit(Txn{{}, {{"w/a", "1"}, {"x", "1"}, {"w/b", "1"}}});
  ASSERT_TRUE(seen.wait_for_state({{"w/a", "1"}, {"w/b", "1"}}));
  watch->reset();
  EXPECT_EQ(seen.batches, (std::vector<std::size_t>{2}));
}

TEST_P(StoreContract, a_watch_sees_only_its_prefix_and_nothing_after_its_end) {
  Recorder seen, all;
  auto watch = store().watch("w/", seen);
  auto wide = store().watch("", all);
  ASSERT_TRUE(watch.ok() && wide.ok());
  for (const char* key : {"w", "w0", "v/a", "w/a"}) must_commit(put(key, "1"));
  ASSERT_TRUE(seen.wait_for_state({{"w/a", "1"}}));
  watch->reset();
  must_commit(put("w/b", "1"));
  ASSERT_TRUE(all.wait([](const Recorder& r) { return r.state.size() == 5; }));
  wide->reset();
  EXPECT_EQ(seen.state.size(), 1u);
}

TEST_P(StoreContract, a_watch_sees_a_lease_end) {
  const auto lease = store().grant(2s);
  ASSERT_TRUE(lease.ok());
  must_commit(Txn{{}, {{"w/a", "1", *lease}, {"w/b", "1", *lease}}});
  Recorder seen;
  auto watch = store().watch("w/", seen);
  ASSERT_TRUE(watch.ok());
  ASSERT_TRUE(pass_until([&] { return !exists("w/a"); }));
  EXPECT_TRUE(seen.wait_for_state({}));
}

TEST_P(StoreContract, a_watcher_may_call_the_store) {
  class Echo final : public Watcher {
   public:
    explicit Echo(Store& store) : store_(store) {}
    void on_reset(const Snapshot&) override {
      (void)store_.commit(put("echo", "1"));  // the test sees the key
    }
    void on_changes(const std::vector<Change>&, Version) override {}
    void on_lost(const Error&) override {}

   private:
    Store& store_;
  };
  Echo echo(store());
  auto watch = store().watch("w/", echo);
  ASSERT_TRUE(watch.ok());
  // Not pass_until(): a manual clock may run far before the store's thread has had its turn.
  Recorder seen;
  auto echoes = store().watch("echo", seen);
  ASSERT_TRUE(echoes.ok());
  EXPECT_TRUE(seen.wait_for_state({{"echo", "1"}}));
}

TEST_P(StoreContract, two_clients_see_each_others_writes) {
  Store* other = world_->second();
  if (other == nullptr) GTEST_SKIP() << "this backend has one client only";
  Recorder seen;
  auto watch = other->watch("", seen);
  ASSERT_TRUE(watch.ok());
  const Version version = must_commit(put("a", "1"));
  EXPECT_EQ(other->get("a")->version, version);
  const auto swapped = other->commit(swap("a", version, "2"));
  ASSERT_TRUE(swapped.ok());
  EXPECT_TRUE(swapped->done);
  EXPECT_EQ(store().get("a")->value, "2");
  EXPECT_FALSE(store().commit(swap("a", version, "3"))->done);
  EXPECT_TRUE(seen.wait_for_state({{"a", "2"}}));
  const auto lease = other->grant(60s);
  ASSERT_TRUE(lease.ok());
  EXPECT_TRUE(store().keep_alive(*lease).ok());
}

TEST_P(StoreContract, large_values_come_back_whole) {
  std::string value(256 * 1024, 'x');
  for (std::size_t i = 0; i < value.size(); ++i) value[i] = static_cast<char>(i * 31 + i / 256);
  Recorder seen;
  auto watch = store().watch("", seen);
  ASSERT_TRUE(watch.ok());
  must_commit(put("big", value));
  EXPECT_EQ(store().get("big")->value, value);
  EXPECT_TRUE(seen.wait_for_state({{"big", value}}));
}

TEST_P(StoreContract, many_keys_are_listed_whole) {
  constexpr int kKeys = 2000;
  for (int first = 0; first < kKeys; first += 100) {
    Txn txn;
    for (int i = first; i < first + 100; ++i)
      txn.writes.push_back({"many/" + std::to_string(10000 + i), std::string(1024, 'v'), {}, false});
    must_commit(txn);
  }
  const auto listed = store().list("many/");
  ASSERT_TRUE(listed.ok()) << listed.error().what;
  ASSERT_EQ(listed->entries.size(), static_cast<std::size_t>(kKeys));
  for (int i = 0; i < kKeys; ++i)
    ASSERT_EQ(listed->entries[static_cast<std::size_t>(i)].key, "many/" + std::to_string(10000 + i));
  Recorder seen;
  auto watch = store().watch("many/", seen);
  ASSERT_TRUE(watch.ok());
  EXPECT_TRUE(seen.wait([](const Recorder& r) { return r.state.size() == kKeys; }));
}

TEST_P(StoreContract, what_was_committed_survives_a_restart) {
  must_commit(put("gone", "1"));
  must_commit(erase("gone"));
  const Version version = must_commit(put("a", "1"));
  const auto lease = store().grant(2s);
  ASSERT_TRUE(lease.ok());
  must_commit(put("bound", "1", *lease));
  const Version last = must_commit(put("b", "1"));
  if (!world_->restart()) GTEST_SKIP() << "this backend keeps nothing";
  const auto found = store().get("a");
  ASSERT_TRUE(found.ok()) << found.error().what;
  EXPECT_EQ(found->version, version);
  EXPECT_FALSE(exists("gone"));
  EXPECT_GT(must_commit(put("c", "1")), last);
  EXPECT_TRUE(pass_until([&] { return !exists("bound"); }));
  EXPECT_EQ(store().keep_alive(*lease).code(), Code::not_found);
}

}  // namespace hf::contract
