// Goal: what the deciding code asks of the store happens there, and what it hears back is never better than the truth.
// Method: StoreShell on a store in memory, with a mailbox that the test empties; a store that loses replies.
#include "daemon/store_shell.hpp"

#include <gtest/gtest.h>

#include "sim/memory_store.hpp"

namespace hf::daemon {
namespace {

namespace key = record::key;

// Does what it is told and says that it does not know.
class ForgetfulStore : public Store {
 public:
  Result<Snapshot> list(const std::string& prefix) override { return inner.list(prefix); }
  Result<Entry> get(const std::string& at) override { return inner.get(at); }
  Result<Committed> commit(const Txn& txn) override {
    auto done = inner.commit(txn);
    if (code == Code::outcome_unknown) return Error{code, "The reply was lost."};
    if (code == Code::unavailable) return Error{code, "Not reachable."};
    return done;
  }
  Result<LeaseId> grant(std::chrono::seconds ttl) override { return inner.grant(ttl); }
  Status keep_alive(LeaseId lease) override { return inner.keep_alive(lease); }
  Status revoke(LeaseId lease) override { return inner.revoke(lease); }
  Result<std::unique_ptr<Watch>> watch(const std::string& prefix, Watcher& watcher) override {
    return inner.watch(prefix, watcher);
  }
  sim::MemoryStore inner;
  Code code = Code::failed;  // failed: none
};

class StoreShellTest : public ::testing::Test {
 protected:
  template <class Wanted>
  Wanted next() {
    for (int tries = 0; tries < 100; ++tries) {
      for (auto& event : mailbox_.take(100ms)) waiting_.push_back(std::move(event));
      for (auto it = waiting_.begin(); it != waiting_.end(); ++it) {
        if (auto* wanted = std::get_if<Wanted>(&*it)) {
          Wanted found = std::move(*wanted);
          waiting_.erase(it);
          return found;
        }
      }
    }
    ADD_FAILURE() << "the event did not come";
    return {};
  }
  record::TaskRecord written(const record::TaskRecord& task) {
    ha::TypedTxn txn;
    txn.writes.push_back({key::kTasks + "t-1", task, 0});
    return *record::decode<record::TaskRecord>(to_txn(txn, HostId("host1")).writes.front().value);
  }
  ha::TypedTxn owner_txn() {
    ha::TypedTxn txn;
    record::OwnerRecord owner;
    owner.host = HostId("host1");
    owner.epoch = Epoch{3};
    txn.writes.push_back({key::kOwners + "vm-1", owner, 0});
    record::EventRecord event;
    event.kind = "ha.vm.restart";
    event.text = "VM web is restarted.";
    txn.events.push_back(event);
    return txn;
  }

  ForgetfulStore store_;
  Mailbox mailbox_;
  std::vector<ha::Event> waiting_;
  StoreShell shell_{HostId("host1"), store_, mailbox_};
};

TEST_F(StoreShellTest, a_commit_writes_records_and_its_events_in_one_swap) {
  shell_.carry_out(ha::action::Commit{7, owner_txn()});
  const auto done = next<ha::event::TxnDone>();
  EXPECT_EQ(done.op, 7u);
  EXPECT_EQ(done.outcome, ha::Outcome::done);
  const auto owner = store_.get(key::kOwners + "vm-1");
  ASSERT_TRUE(owner.ok());
  EXPECT_EQ(owner->version, done.version);
  const auto events = store_.list(key::kEvents);
  ASSERT_EQ(events->entries.size(), 1u);
  EXPECT_EQ(events->entries[0].version, done.version);
  EXPECT_EQ(record::decode<record::EventRecord>(events->entries[0].value)->host, HostId("host1"));
}

TEST_F(StoreShellTest, outcomes_are_reported_as_what_is_known) {
  auto refused = owner_txn();
  refused.conditions.push_back({key::kOwners + "vm-1", 99});
  shell_.carry_out(ha::action::Commit{1, refused});
  EXPECT_EQ(next<ha::event::TxnDone>().outcome, ha::Outcome::refused);
  store_.code = Code::outcome_unknown;
  shell_.carry_out(ha::action::Commit{2, owner_txn()});
  EXPECT_EQ(next<ha::event::TxnDone>().outcome, ha::Outcome::unknown);
  store_.code = Code::unavailable;
  shell_.carry_out(ha::action::Commit{3, owner_txn()});
  EXPECT_EQ(next<ha::event::TxnDone>().outcome, ha::Outcome::unavailable);
}

TEST_F(StoreShellTest, a_lease_that_has_ended_is_refused_and_a_grant_says_when_it_began) {
  shell_.carry_out(ha::action::Grant{1, std::chrono::seconds(5)});
  const auto granted = next<ha::event::LeaseGranted>();
  ASSERT_TRUE(granted.ok);
  EXPECT_NE(granted.began, Instant{});
  shell_.carry_out(ha::action::KeepAlive{2, granted.lease});
  EXPECT_EQ(next<ha::event::LeaseKept>().outcome, ha::Outcome::done);
  ASSERT_TRUE(store_.revoke(LeaseId{granted.lease}).ok());
  shell_.carry_out(ha::action::KeepAlive{3, granted.lease});
  EXPECT_EQ(next<ha::event::LeaseKept>().outcome, ha::Outcome::refused);
}

TEST_F(StoreShellTest, an_owner_record_that_cannot_be_read_gives_nobody_a_right) {
  Change change;
  change.entry = Entry{key::kOwners + "vm-1", "{\"format\":1", 5, LeaseId{}};
  const auto state = to_key_state(change);
  ASSERT_TRUE(state.has_value());
  const auto* owner = std::get_if<record::OwnerRecord>(&state->value);
  ASSERT_NE(owner, nullptr);
  EXPECT_EQ(owner->phase, record::OwnerRecord::Phase::claimed);
  EXPECT_NE(owner->host, HostId("host1"));
}

TEST_F(StoreShellTest, what_was_known_of_another_record_that_cannot_be_read_stays) {
  shell_.start();
  EXPECT_TRUE(next<ha::event::StoreReset>().all.empty());
  record::VmRecord vm;
  vm.id = VmId("vm-1");
  vm.spec.name = "web";
  vm.spec.datastore = "shared1";
  vm.spec.memory_mib = 128;
  ASSERT_TRUE(store_.commit(Txn{{}, {{key::kVms + "vm-1", record::encode(vm)}}}).ok());
  EXPECT_EQ(next<ha::event::StoreChanged>().changes.size(), 1u);
  ASSERT_TRUE(store_.commit(Txn{{}, {{key::kVms + "vm-1", R"({"format":1,"desired":"paused"})"}}}).ok());
  EXPECT_TRUE(next<ha::event::StoreChanged>().changes.empty());
}

TEST_F(StoreShellTest, a_read_of_an_absent_key_says_as_of_when) {
  shell_.carry_out(ha::action::Commit{1, owner_txn()});
  const auto done = next<ha::event::TxnDone>();
  shell_.carry_out(ha::action::Read{2, key::kOwners + "vm-2"});
  const auto read = next<ha::event::KeyRead>();
  EXPECT_TRUE(read.ok);
  EXPECT_TRUE(std::holds_alternative<std::monostate>(read.state.value));
  EXPECT_GE(read.as_of, done.version);
}

TEST_F(StoreShellTest, task_that_ends_gets_its_time_once) {
  record::TaskRecord task;
  task.state = record::TaskState::running;
  EXPECT_EQ(written(task).finished, 0);
  task.state = record::TaskState::failed;
  EXPECT_GT(written(task).finished, 0);
  task.state = record::TaskState::succeeded;
  task.finished = 7;  // a report is added to it later
  EXPECT_EQ(written(task).finished, 7);
}

}  // namespace
}  // namespace hf::daemon
