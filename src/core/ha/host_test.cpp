// Goal: the edges of the agent and the leader that the simulator reaches only by chance, told as short stories.
// Method: one HostCore, a hand-fed store view; actions are looked up by type.
#include "core/ha/host.hpp"

#include <gtest/gtest.h>

namespace hf::ha {
namespace {

using record::OwnerRecord;
using Phase = OwnerRecord::Phase;

template <class T>
const T* find(const Actions& actions) {
  for (const auto& action : actions) {
    if (const auto* wanted = std::get_if<T>(&action)) return wanted;
  }
  return nullptr;
}

class HostStory : public ::testing::Test {
 protected:
  HostStory() {
    step(event::StoreReset{{}, version_});
    step(event::Adopted{});
    event::GuardReport guard;
    guard.generation = 1;
    step(guard);
    auto actions = step(event::Tick{});
    actions = step(event::LeaseGranted{find<action::Grant>(actions)->op, true, 7, now_});
    const auto* publish = find<action::Commit>(actions);
    session_ = std::get<record::SessionRecord>(publish->txn.writes.front().value).session;
    step(event::TxnDone{publish->op, Outcome::done, ++version_});
  }

  Actions step(const Event& event) { return core_.step(event, now_); }
  Actions put(const std::string& key, record::Any value) {
    ++version_;
    return step(event::StoreChanged{{KeyState{key, version_, std::move(value)}}, version_});
  }
  record::VmRecord vm(const std::string& id, record::Desired desired = record::Desired::running) {
    record::VmRecord record;
    record.id = VmId(id);
    record.spec.name = id;
    record.spec.memory_mib = 100;
    record.desired = desired;
    return record;
  }
  OwnerRecord owner(Phase phase, const std::string& host, std::uint64_t epoch) {
    OwnerRecord record;
    record.phase = phase;
    record.host = HostId(host);
    record.epoch = Epoch{epoch};
    return record;
  }
  // Brings vm-1 up to `running` with epoch 1.
  void run_vm1() {
    put("vms/vm-1", vm("vm-1"));
    auto actions = put("owners/vm-1", owner(Phase::assigned, "a", 1));
    const auto* claim = find<action::Commit>(actions);
    ASSERT_NE(claim, nullptr);
    actions = step(event::TxnDone{claim->op, Outcome::done, ++version_});
    ASSERT_NE(find<action::Launch>(actions), nullptr);
    actions = step(event::Launched{VmId("vm-1"), Epoch{1}, true, false, {}});
    step(event::TxnDone{find<action::Commit>(actions)->op, Outcome::done, ++version_});
  }

  Instant now_ = Instant{} + 1000s;
  Version version_ = 10;
  SessionId session_;
  HostCore core_{HostId("a"), Timing{}, 1};
};

TEST_F(HostStory, assigned_vm_is_claimed_with_our_session_then_launched) {
  put("vms/vm-1", vm("vm-1"));
  auto actions = put("owners/vm-1", owner(Phase::assigned, "a", 4));
  const auto* claim = find<action::Commit>(actions);
  ASSERT_NE(claim, nullptr);
  const auto& written = std::get<OwnerRecord>(claim->txn.writes.front().value);
  EXPECT_EQ(written.phase, Phase::claimed);
  EXPECT_EQ(written.epoch, Epoch{4});
  EXPECT_EQ(written.session, session_);
  EXPECT_EQ(find<action::Launch>(actions), nullptr);
  actions = step(event::TxnDone{claim->op, Outcome::done, ++version_});
  ASSERT_NE(find<action::Launch>(actions), nullptr);
  EXPECT_EQ(find<action::Launch>(actions)->generation, 1u);
}

TEST_F(HostStory, claim_of_unknown_outcome_is_read_back_and_launched_only_if_it_was_ours) {
  put("vms/vm-1", vm("vm-1"));
  auto actions = put("owners/vm-1", owner(Phase::assigned, "a", 4));
  const auto claim = *find<action::Commit>(actions);
  actions = step(event::TxnDone{claim.op, Outcome::unknown, 0});
  EXPECT_EQ(find<action::Launch>(actions), nullptr);
  ASSERT_NE(find<action::Read>(actions), nullptr);
  const auto written = claim.txn.writes.front();
  ++version_;
  actions = step(event::KeyRead{claim.op, true, {written.key, version_, written.value}, version_});
  EXPECT_NE(find<action::Launch>(actions), nullptr);
}

TEST_F(HostStory, claim_of_unknown_outcome_that_did_not_happen_is_sent_again) {
  put("vms/vm-1", vm("vm-1"));
  auto actions = put("owners/vm-1", owner(Phase::assigned, "a", 4));
  const auto claim = *find<action::Commit>(actions);
  const Version before = version_;
  step(event::TxnDone{claim.op, Outcome::unknown, 0});
  actions = step(event::KeyRead{claim.op, true, {"owners/vm-1", before, owner(Phase::assigned, "a", 4)}, before + 1});
  EXPECT_EQ(find<action::Launch>(actions), nullptr);
  now_ += 1s;
  actions = step(event::GuardReport{1, false, {}});
  EXPECT_NE(find<action::Commit>(actions), nullptr);
}

TEST_F(HostStory, nothing_is_claimed_while_the_guard_has_lapsed) {
  step(event::GuardReport{2, true, {}});
  put("vms/vm-1", vm("vm-1"));
  EXPECT_EQ(find<action::Commit>(put("owners/vm-1", owner(Phase::assigned, "a", 4))), nullptr);
}

TEST_F(HostStory, vm_taken_over_is_killed_and_never_released) {
  run_vm1();
  auto actions = put("owners/vm-1", owner(Phase::assigned, "b", 2));
  ASSERT_NE(find<action::Kill>(actions), nullptr);
  EXPECT_EQ(find<action::Commit>(actions), nullptr);
  actions = step(event::Exited{VmId("vm-1"), Epoch{1}, ExitKind::killed, ""});
  EXPECT_EQ(find<action::Commit>(actions), nullptr);
}

TEST_F(HostStory, frozen_vm_is_thawed_only_after_a_claim_that_began_after_the_freeze) {
  run_vm1();
  step(event::GuardReport{2, true, {VmId("vm-1")}});
  auto actions = step(event::GuardReport{2, false, {VmId("vm-1")}});
  const auto* claim = find<action::Commit>(actions);
  ASSERT_NE(claim, nullptr);
  EXPECT_EQ(find<action::Thaw>(actions), nullptr);
  actions = step(event::TxnDone{claim->op, Outcome::done, ++version_});
  ASSERT_NE(find<action::Thaw>(actions), nullptr);
  EXPECT_EQ(find<action::Thaw>(actions)->generation, 2u);
}

TEST_F(HostStory, crashed_vm_restarts_in_place_with_the_next_epoch_until_its_limit) {
  run_vm1();
  std::uint64_t epoch = 1;
  for (int crash = 1; crash <= 3; ++crash) {
    auto actions = step(event::Exited{VmId("vm-1"), Epoch{epoch}, ExitKind::qemu_crash, "boom"});
    const auto* claim = find<action::Commit>(actions);
    ASSERT_NE(claim, nullptr) << crash;
    EXPECT_EQ(std::get<OwnerRecord>(claim->txn.writes.front().value).epoch, Epoch{++epoch});
    step(event::TxnDone{claim->op, Outcome::done, ++version_});
    actions = step(event::Launched{VmId("vm-1"), Epoch{epoch}, true, false, {}});
    step(event::TxnDone{find<action::Commit>(actions)->op, Outcome::done, ++version_});
  }
  step(event::Exited{VmId("vm-1"), Epoch{epoch}, ExitKind::qemu_crash, "boom"});
  auto actions = step(event::GuardReport{1, false, {}});
  const auto* release = find<action::Commit>(actions);
  ASSERT_NE(release, nullptr);
  EXPECT_EQ(std::get<OwnerRecord>(release->txn.writes.front().value).phase, Phase::released);
}

TEST_F(HostStory, guest_that_shuts_itself_down_stays_down) {
  run_vm1();
  auto actions = step(event::Exited{VmId("vm-1"), Epoch{1}, ExitKind::guest_shutdown, ""});
  const auto* release = find<action::Commit>(actions);
  ASSERT_NE(release, nullptr);
  bool stays_down = false;
  for (const auto& write : release->txn.writes) {
    if (const auto* record = std::get_if<record::VmRecord>(&write.value))
      stays_down = record->desired == record::Desired::stopped;
  }
  EXPECT_TRUE(stays_down);
}

TEST_F(HostStory, stop_asks_first_and_kills_after_the_time_limit) {
  run_vm1();
  record::TaskRecord task;
  task.id = TaskId("t-1");
  task.kind = record::TaskKind::vm_stop;
  task.vm = VmId("vm-1");
  task.timeout_seconds = 5;
  put("tasks/t-1", task);
  auto stopping = vm("vm-1", record::Desired::stopped);
  stopping.active_task = task.id;
  auto actions = put("vms/vm-1", stopping);
  EXPECT_NE(find<action::AskStop>(actions), nullptr);
  EXPECT_EQ(find<action::Kill>(actions), nullptr);
  now_ += 6s;
  EXPECT_NE(find<action::Kill>(step(event::Tick{})), nullptr);
  actions = step(event::Exited{VmId("vm-1"), Epoch{1}, ExitKind::killed, ""});
  ASSERT_NE(find<action::Commit>(actions), nullptr);
}

TEST_F(HostStory, vm_being_killed_is_not_asked_to_stop_again) {
  run_vm1();
  record::TaskRecord task;
  task.id = TaskId("t-1");
  task.kind = record::TaskKind::vm_stop;
  task.vm = VmId("vm-1");
  task.timeout_seconds = 5;
  put("tasks/t-1", task);
  auto stopping = vm("vm-1", record::Desired::stopped);
  stopping.active_task = task.id;
  put("vms/vm-1", stopping);
  now_ += 6s;
  ASSERT_NE(find<action::Kill>(step(event::Tick{})), nullptr);
  EXPECT_EQ(find<action::AskStop>(step(event::Tick{})), nullptr);
}

TEST(View, own_write_told_late_does_not_bring_back_an_erased_key) {
  View view;
  view.reset({}, 1);
  const KeyState written{"owners/vm-1", 2, OwnerRecord{}};
  view.apply({written}, 2);
  view.apply({KeyState{"owners/vm-1", 3, {}}}, 3);
  view.apply_own(written);
  EXPECT_EQ(view.owner(VmId("vm-1")), nullptr);
}

TEST(View, key_erased_by_ourselves_is_not_brought_back_by_what_the_watch_tells_from_before) {
  View view;
  view.reset({{"motions/vm-1", 2, record::MotionRecord{}}}, 2);
  view.apply_own({"motions/vm-1", 5, {}});
  view.apply({{"motions/vm-1", 3, record::MotionRecord{}}}, 3);
  EXPECT_EQ(view.motion(VmId("vm-1")), nullptr);
  view.reset({{"motions/vm-1", 3, record::MotionRecord{}}}, 4);
  EXPECT_EQ(view.motion(VmId("vm-1")), nullptr);
  view.apply({{"motions/vm-1", 6, record::MotionRecord{}}}, 6);
  EXPECT_NE(view.motion(VmId("vm-1")), nullptr);
}

// A publication of an earlier life that lands late would bind sessions/<host> to a lease that nobody keeps: the key
// would vanish, and the host be proven dead, while it renews. Seen by the simulator.
TEST(SessionStory, publication_insists_on_the_incarnation_it_replaces) {
  HostCore core(HostId("a"), Timing{}, 1);
  Instant now = Instant{} + 1000s;
  EXPECT_EQ(find<action::Grant>(core.step(event::Tick{}, now)), nullptr);  // the view is not synced yet
  core.step(event::StoreReset{{{"incarnations/a", 7, record::SessionRecord{SessionId("old")}}}, 9}, now);
  auto actions = core.step(event::Tick{}, now);
  ASSERT_NE(find<action::Grant>(actions), nullptr);
  actions = core.step(event::LeaseGranted{find<action::Grant>(actions)->op, true, 5, now}, now);
  const auto* publish = find<action::Commit>(actions);
  ASSERT_NE(publish, nullptr);
  EXPECT_EQ(publish->txn.conditions, (std::vector<TypedTxn::Condition>{{"incarnations/a", 7}}));
  // Refused: another landed first. It is read, for the next attempt.
  actions = core.step(event::TxnDone{publish->op, Outcome::refused, 0}, now);
  EXPECT_NE(find<action::Read>(actions), nullptr);
  EXPECT_FALSE(core.session().active());
}

}  // namespace
}  // namespace hf::ha
