// Goal: the edges of the agent and the leader that the simulator reaches only by chance, told as short stories.
// Method: one HostCore, a hand-fed store view; actions are looked up by type.
#include "core/ha/host.hpp"

#include <gtest/gtest.h>

#include <optional>

#include "core/ha/testing_actions.hpp"

namespace hf::ha {
namespace {

using record::OwnerRecord;
using Phase = OwnerRecord::Phase;

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

TEST_F(HostStory, guest_keeps_the_cpu_that_it_was_started_with) {
  record::HostRecord host;
  host.host = HostId("a");
  host.accelerator = "kvm";
  put("hosts/a", host);
  record::ClusterRecord cluster;
  cluster.evc = "Haswell-v4";
  put("cluster", cluster);
  auto wanted = vm("vm-1");
  wanted.generation = 3;
  put("vms/vm-1", wanted);
  auto actions = put("owners/vm-1", owner(Phase::assigned, "a", 1));
  const auto* claim = find<action::Commit>(actions);
  ASSERT_NE(claim, nullptr);
  const auto claimed = std::get<OwnerRecord>(claim->txn.writes.front().value);
  EXPECT_EQ(claimed.cpu, "Haswell-v4,enforce=on");
  EXPECT_EQ(claimed.generation, 3u);
  actions = step(event::TxnDone{claim->op, Outcome::done, ++version_});
  EXPECT_EQ(find<action::Launch>(actions)->owner.cpu, "Haswell-v4,enforce=on");
  actions = step(event::Launched{VmId("vm-1"), Epoch{1}, true, false, {}});
  step(event::TxnDone{find<action::Commit>(actions)->op, Outcome::done, ++version_});
  // The baseline and the spec change; the host claims the VM again after a freeze.
  cluster.evc = "Westmere-v2";
  put("cluster", cluster);
  wanted.generation = 4;
  wanted.spec.cpu_model = "Nehalem-v1";
  put("vms/vm-1", wanted);
  event::GuardReport guard;
  guard.generation = 2;
  guard.frozen = {VmId("vm-1")};
  actions = step(guard);
  const auto* again = find<action::Commit>(actions);
  ASSERT_NE(again, nullptr);
  EXPECT_EQ(std::get<OwnerRecord>(again->txn.writes.front().value).cpu, "Haswell-v4,enforce=on");
  EXPECT_EQ(std::get<OwnerRecord>(again->txn.writes.front().value).generation, 3u);
}

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

// What a commit says about vm-1's status, or null.
const record::VmStatus* status_in(const Actions& actions) {
  const auto* commit = find<action::Commit>(actions);
  if (commit == nullptr) return nullptr;
  for (const auto& write : commit->txn.writes) {
    if (const auto* status = std::get_if<record::VmStatus>(&write.value)) return status;
  }
  return nullptr;
}

const event::Paused kFull{VmId("vm-1"), Epoch{1}, "data", true, "No space left on device"};

TEST_F(HostStory, guest_on_a_full_datastore_is_paused_with_one_event_and_continued_until_it_goes_on) {
  auto spec = vm("vm-1");
  spec.spec.datastore = "home";
  spec.spec.disks = {{"data", "bulk", 1 << 30, vm::DiskFormat::raw, ""}};
  run_vm1();
  put("vms/vm-1", spec);
  auto actions = step(kFull);
  const auto* paused = status_in(actions);
  ASSERT_NE(paused, nullptr);
  EXPECT_EQ(paused->state, record::VmState::paused);
  EXPECT_NE(paused->message.find("datastore bulk is full."), std::string::npos) << paused->message;
  const auto* commit = find<action::Commit>(actions);
  ASSERT_EQ(commit->txn.events.size(), 1u);
  EXPECT_EQ(commit->txn.events[0].kind, "vm.paused");
  EXPECT_EQ(find<action::Continue>(actions), nullptr);
  step(event::TxnDone{commit->op, Outcome::done, ++version_});
  for (int tries = 0; tries < 3; ++tries) {
    now_ += 9s;
    EXPECT_EQ(find<action::Continue>(step(event::Tick{})), nullptr);
    now_ += 1s;
    actions = step(event::Tick{});
    ASSERT_NE(find<action::Continue>(actions), nullptr);
    EXPECT_EQ(find<action::Continue>(actions)->epoch, Epoch{1});
    // In vain: it says nothing new.
    EXPECT_EQ(find<action::Commit>(step(event::WentOn{VmId("vm-1"), Epoch{1}})), nullptr);
    EXPECT_EQ(find<action::Commit>(step(kFull)), nullptr);
  }
  now_ += 10s;
  ASSERT_NE(find<action::Continue>(step(event::Tick{})), nullptr);
  step(event::WentOn{VmId("vm-1"), Epoch{1}});
  now_ += 2s;
  EXPECT_EQ(find<action::Commit>(step(event::Tick{})), nullptr);
  now_ += 1s;
  actions = step(event::Tick{});
  ASSERT_NE(status_in(actions), nullptr);
  EXPECT_EQ(status_in(actions)->state, record::VmState::running);
  commit = find<action::Commit>(actions);
  ASSERT_EQ(commit->txn.events.size(), 1u);
  EXPECT_EQ(commit->txn.events[0].kind, "vm.continued");
  step(event::TxnDone{commit->op, Outcome::done, ++version_});
  now_ += 20s;
  EXPECT_TRUE(step(event::GuardReport{1, false, {}}).empty());
}

TEST_F(HostStory, other_disk_error_is_told_in_the_systems_words) {
  run_vm1();
  auto actions = step(event::Paused{VmId("vm-1"), Epoch{1}, "root", false, "Input/output error"});
  ASSERT_NE(status_in(actions), nullptr);
  EXPECT_NE(status_in(actions)->message.find("Disk error on root"), std::string::npos);
  EXPECT_NE(status_in(actions)->message.find("Input/output error"), std::string::npos);
}

TEST_F(HostStory, pause_of_another_epoch_is_nobodys) {
  run_vm1();
  auto old = kFull;
  old.epoch = Epoch{0};
  EXPECT_EQ(find<action::Commit>(step(old)), nullptr);
  now_ += 10s;
  EXPECT_EQ(find<action::Continue>(step(event::GuardReport{1, false, {}})), nullptr);
}

TEST_F(HostStory, paused_guest_is_not_continued_while_frozen_without_contact_or_taken_over) {
  run_vm1();
  step(event::TxnDone{find<action::Commit>(step(kFull))->op, Outcome::done, ++version_});
  now_ += 10s;
  EXPECT_EQ(find<action::Continue>(step(event::GuardReport{2, true, {VmId("vm-1")}})), nullptr);
  EXPECT_EQ(find<action::Continue>(step(event::GuardReport{2, false, {VmId("vm-1")}})), nullptr);
  auto actions = put("owners/vm-1", owner(Phase::assigned, "b", 2));
  EXPECT_NE(find<action::Kill>(actions), nullptr);
  now_ += 10s;
  EXPECT_EQ(find<action::Continue>(step(event::GuardReport{2, false, {}})), nullptr);
}

TEST_F(HostStory, pause_heard_of_before_the_vm_was_adopted_counts) {
  run_vm1();
  const auto owner = core_.view().owner(VmId("vm-1"))->record;
  HostCore next(HostId("a"), Timing{}, 2);
  next.step(kFull, now_);
  next.step(event::Adopted{{{VmId("vm-1"), Epoch{1}}}, {}, {}}, now_);
  next.step(event::StoreReset{{{"owners/vm-1", 1, owner}, {"vms/vm-1", 1, vm("vm-1")}}, 1}, now_);
  next.step(event::GuardReport{1, false, {}}, now_);
  const auto granted = find<action::Grant>(next.step(event::Tick{}, now_))->op;
  const auto publish = *find<action::Commit>(next.step(event::LeaseGranted{granted, true, 7, now_}, now_));
  auto actions = next.step(event::TxnDone{publish.op, Outcome::done, 2}, now_);
  const auto reclaim = *find<action::Commit>(actions);
  actions = next.step(event::TxnDone{reclaim.op, Outcome::done, 3}, now_);
  ASSERT_NE(status_in(actions), nullptr);
  EXPECT_EQ(status_in(actions)->state, record::VmState::paused);
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

TEST_F(HostStory, vm_whose_record_cannot_be_read_runs_on) {
  run_vm1();
  auto actions = put("vms/vm-1", {});
  EXPECT_EQ(find<action::Kill>(actions), nullptr);
  EXPECT_EQ(find<action::Kill>(step(event::Tick{})), nullptr);
  EXPECT_NE(find<action::Kill>(put("owners/vm-1", owner(Phase::assigned, "b", 2))), nullptr);
}

TEST_F(HostStory, running_vm_is_reported_with_its_accelerator_and_how_its_memory_can_be_read) {
  record::HostRecord host;
  host.host = HostId("a");
  host.accelerator = "tcg";
  put("hosts/a", host);
  put("vms/vm-1", vm("vm-1"));
  auto actions = put("owners/vm-1", owner(Phase::assigned, "a", 1));
  step(event::TxnDone{find<action::Commit>(actions)->op, Outcome::done, ++version_});
  actions = step(event::Launched{VmId("vm-1"), Epoch{1}, true, false, {}, "PAGEMAP_SCAN"});
  const auto* report = find<action::Commit>(actions);
  ASSERT_NE(report, nullptr);
  const auto& status = std::get<record::VmStatus>(report->txn.writes.front().value);
  EXPECT_EQ(status.state, record::VmState::running);
  EXPECT_EQ(status.accelerator, "tcg");
  EXPECT_EQ(status.memory_tracker, "PAGEMAP_SCAN");
}

TEST_F(HostStory, adopted_vm_whose_status_does_not_say_how_its_memory_can_be_read_is_told_of_once_more) {
  run_vm1();
  ASSERT_EQ(core_.view().status_of(VmId("vm-1"))->record.memory_tracker, "");
  const auto actions = step(event::Adopted{{{VmId("vm-1"), Epoch{1}, {}, "none: it has no shim."}}, {}, {}});
  ASSERT_NE(status_in(actions), nullptr);
  EXPECT_EQ(status_in(actions)->memory_tracker, "none: it has no shim.");
  EXPECT_TRUE(find<action::Commit>(actions)->txn.events.empty());
  step(event::TxnDone{find<action::Commit>(actions)->op, Outcome::done, ++version_});
  EXPECT_EQ(status_in(step(event::Tick{})), nullptr);
}

TEST_F(HostStory, vm_that_goes_on_after_a_freeze_is_told_of_with_how_long_it_stood) {
  run_vm1();
  EXPECT_EQ(find<action::Emit>(step(event::GuardReport{2, true, {VmId("vm-1")}})), nullptr);
  now_ += 3s;
  EXPECT_EQ(find<action::Emit>(step(event::GuardReport{2, false, {VmId("vm-1")}})), nullptr);
  now_ += 1200ms;
  const auto actions = step(event::GuardReport{2, false, {}});
  const auto* emit = find<action::Emit>(actions);
  ASSERT_NE(emit, nullptr);
  EXPECT_EQ(emit->event.severity, "warning");
  EXPECT_EQ(emit->event.kind, "ha.vm.frozen");
  EXPECT_EQ(emit->event.vm, VmId("vm-1"));
  EXPECT_EQ(emit->event.subject, "vm-1");
  EXPECT_EQ(emit->event.text, "VM vm-1 was frozen 4.2 s: a had lost contact with the store and its datastores.");
  EXPECT_EQ(find<action::Emit>(step(event::GuardReport{2, false, {}})), nullptr) << "told once";
}

TEST_F(HostStory, frozen_vm_that_is_killed_is_not_told_of_as_going_on) {
  run_vm1();
  step(event::GuardReport{2, true, {VmId("vm-1")}});
  ASSERT_NE(find<action::Kill>(put("owners/vm-1", owner(Phase::assigned, "b", 2))), nullptr);
  EXPECT_EQ(find<action::Emit>(step(event::GuardReport{2, false, {}})), nullptr);
}

TEST(AgentStory, freeze_from_before_the_daemon_is_told_of_as_at_least) {
  HostCore core(HostId("a"), Timing{}, 1);
  Instant now = Instant{} + 1000s;
  OwnerRecord owner;
  owner.phase = Phase::claimed;
  owner.host = HostId("a");
  owner.epoch = Epoch{1};
  core.step(event::StoreReset{{{"owners/vm-1", 1, owner}}, 1}, now);
  core.step(event::GuardReport{2, true, {VmId("vm-1")}}, now);
  core.step(event::Adopted{{{VmId("vm-1"), Epoch{1}}}, {}, {}}, now);
  now += 2s;
  const auto actions = core.step(event::GuardReport{2, false, {}}, now);
  ASSERT_NE(find<action::Emit>(actions), nullptr);
  EXPECT_NE(find<action::Emit>(actions)->event.text.find("was frozen at least 2.0 s: a had"), std::string::npos);
}

// The leader of three hosts a, b and c; b is dead, vm-1 was its, and c has the room.
class LeaderStory : public HostStory {
 protected:
  LeaderStory() {
    for (const char* name : {"a", "b", "c"}) {
      record::HostRecord host;
      host.host = HostId(name);
      host.memory_mib = 1000;
      host.slot_datastores = {"ds-1"};
      put("hosts/" + host.host.text, host);
      if (host.host == HostId("a")) continue;
      const record::SessionRecord session{SessionId("s-" + host.host.text)};
      put("incarnations/" + host.host.text, session);
      put("sessions/" + host.host.text, session);
    }
    put("leader", record::LeaderRecord{HostId("a"), session_});
    // Past the quiet time of its own first contact.
    step(event::Tick{});
    now_ += Timing{}.quiet;
    step(event::Tick{});
  }
  void give_vm1_to_b(const std::string& pinned_host) {
    auto record = vm("vm-1");
    record.pinned_host = pinned_host;
    put("vms/vm-1", record);
    auto claimed = owner(Phase::claimed, "b", 1);
    claimed.guarded = true;
    put("owners/vm-1", claimed);
    step(event::Tick{});
  }
  // No session, no heartbeat, a slot that stands still: proven.
  void kill_b() {
    put("sessions/b", {});
    const auto read = [&](std::uint64_t content) {
      step(event::SlotRead{HostId("b"), "ds-1", true, content, now_, now_});
    };
    read(1);
    step(event::Tick{});
    now_ += Timing{}.takeover_after;
    read(1);
  }
  // The new owner of vm-1 that a tick asks for, if it does.
  std::optional<OwnerRecord> given() {
    for (const auto& action : step(event::Tick{})) {
      const auto* commit = std::get_if<action::Commit>(&action);
      if (commit == nullptr) continue;
      for (const auto& write : commit->txn.writes) {
        if (write.key != "owners/vm-1") continue;
        op_ = commit->op;
        return std::get<OwnerRecord>(write.value);
      }
    }
    return std::nullopt;
  }
  OpId op_ = 0;  // of the swap that given() saw last
};

TEST_F(LeaderStory, vm_of_a_dead_host_is_given_to_another) {
  give_vm1_to_b("");
  EXPECT_FALSE(given().has_value());
  kill_b();
  const auto next = given();
  ASSERT_TRUE(next.has_value());
  EXPECT_EQ(next->epoch, Epoch{2});
  EXPECT_NE(next->host, HostId("b"));
}

TEST_F(LeaderStory, vm_started_on_a_named_host_is_restarted_on_another) {
  give_vm1_to_b("b");
  kill_b();
  const auto next = given();
  ASSERT_TRUE(next.has_value()) << "`vm start --on` names the host of that start only";
  EXPECT_NE(next->host, HostId("b"));
}

TEST_F(LeaderStory, vm_that_is_being_started_on_a_named_host_goes_nowhere_else) {
  record::TaskRecord task;
  task.id = TaskId("t-1");
  task.kind = record::TaskKind::vm_start;
  task.vm = VmId("vm-1");
  put("tasks/t-1", task);
  auto record = vm("vm-1");
  record.pinned_host = "c";
  record.active_task = task.id;
  put("vms/vm-1", record);
  const auto first = given();
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(first->host, HostId("c"));
}

TEST_F(LeaderStory, lapse_of_its_own_contact_between_two_ticks_delays_what_it_does_to_others) {
  give_vm1_to_b("");
  // The guard's deadline passed and was renewed again before the next tick: only its generation tells.
  step(event::GuardReport{2, true, {}});
  step(event::GuardReport{2, false, {}});
  step(event::Tick{});
  kill_b();
  EXPECT_FALSE(given().has_value());
  EXPECT_NE(core_.leader().brake(), "");
  now_ += Timing{}.quiet - Timing{}.takeover_after - 1ms;
  EXPECT_FALSE(given().has_value());
  now_ += 1ms;
  EXPECT_TRUE(given().has_value());
}

TEST_F(LeaderStory, swap_that_was_not_done_is_sent_again_at_the_next_tick) {
  give_vm1_to_b("");
  kill_b();
  ASSERT_TRUE(given().has_value());
  step(event::TxnDone{op_, Outcome::unavailable, 0});
  EXPECT_TRUE(given().has_value());
}

TEST_F(LeaderStory, swap_without_an_answer_is_sent_again_after_its_patience) {
  give_vm1_to_b("");
  kill_b();
  ASSERT_TRUE(given().has_value());
  EXPECT_FALSE(given().has_value());
  now_ += 5s;
  EXPECT_TRUE(given().has_value());
}

TEST_F(LeaderStory, assignment_that_nobody_claims_goes_to_another_host_without_any_other_event) {
  put("vms/vm-1", vm("vm-1"));
  auto assigned = owner(Phase::assigned, "b", 4);
  put("owners/vm-1", assigned);
  EXPECT_FALSE(given().has_value());
  now_ += Timing{}.claim_timeout - 1ms;
  EXPECT_FALSE(given().has_value());
  now_ += 1ms;
  const auto next = given();
  ASSERT_TRUE(next.has_value());
  EXPECT_EQ(next->epoch, Epoch{5});
}

TEST_F(LeaderStory, failed_start_is_tried_again_when_its_time_has_come_without_any_other_event) {
  put("vms/vm-1", vm("vm-1"));
  OwnerRecord released = owner(Phase::released, "", 4);
  put("owners/vm-1", released);
  step(event::Tick{});
  record::VmStatus failed;
  failed.state = record::VmState::failed;
  failed.attempts = 2;
  put("status/vm-1", failed);
  now_ += 5s;  // the swap that the released owner led to is without an answer
  EXPECT_FALSE(given().has_value());
  now_ += 10s - 1ms;
  EXPECT_FALSE(given().has_value());
  now_ += 1ms;
  EXPECT_TRUE(given().has_value());
}

// What a host holds, looked up one by one.
void expect_held_is_owners(const View& view) {
  std::map<HostId, std::set<VmId>> held;
  for (const auto& [vm, owner] : view.owners) {
    if (owner.record.phase != Phase::released) held[owner.record.host].insert(vm);
  }
  EXPECT_EQ(view.held, held);
}

TEST(View, held_follows_the_owners_through_changes_and_snapshots) {
  View view;
  const auto owned = [](Phase phase, const char* host) {
    OwnerRecord record;
    record.phase = phase;
    record.host = HostId(host);
    return record;
  };
  view.reset({{"owners/vm-1", 1, owned(Phase::claimed, "a")}, {"owners/vm-2", 2, owned(Phase::assigned, "b")}}, 2);
  EXPECT_EQ(view.held.size(), 2u);
  expect_held_is_owners(view);
  view.apply({{"owners/vm-1", 3, owned(Phase::claimed, "b")}}, 3);
  EXPECT_EQ(view.held.at(HostId("b")).size(), 2u);
  expect_held_is_owners(view);
  view.apply({{"owners/vm-2", 4, owned(Phase::released, "")}}, 4);
  expect_held_is_owners(view);
  view.apply_own({"owners/vm-3", 9, owned(Phase::claimed, "a")});
  view.reset({{"owners/vm-1", 3, owned(Phase::claimed, "b")}}, 5);  // vm-2 is gone; our write is newer than it
  EXPECT_EQ(view.held.at(HostId("a")), std::set<VmId>{VmId("vm-3")});
  expect_held_is_owners(view);
  view.apply({{"owners/vm-1", 6, {}}}, 6);
  EXPECT_EQ(view.held.count(HostId("b")), 0u);
  expect_held_is_owners(view);
}

TEST(View, revision_grows_with_a_change_and_only_then) {
  View view;
  view.reset({}, 1);
  const auto before = view.revision;
  const KeyState written{"owners/vm-1", 2, OwnerRecord{}};
  view.apply_own(written);
  EXPECT_EQ(view.revision, before + 1);
  view.apply({written}, 2);
  view.apply({{"events/1", 3, {}}}, 3);
  EXPECT_EQ(view.revision, before + 1);
  view.reset({}, 4);
  EXPECT_GT(view.revision, before + 1);
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
