// Goal: each hand-over of the right to run in a motion, told as short stories; above all what must not happen.
// Method: one HostCore, a hand-fed store view; actions are looked up by type.
#include "core/motion/motion.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/ha/host.hpp"
#include "core/ha/testing_actions.hpp"

namespace hf::motion {
namespace {

using namespace ha;  // NOLINT: stories are told in its words
using record::MotionRecord;
using record::OwnerRecord;

const VmId kVm("vm-1");
const TaskId kTask("task-1");

bool insists_on(const action::Commit& commit, const TypedTxn::Condition& condition) {
  const auto& all = commit.txn.conditions;
  return std::find(all.begin(), all.end(), condition) != all.end();
}

// This host is "a"; "b" is the other one.
class MotionStory : public ::testing::Test {
 protected:
  void begin(const event::Adopted& adopted, std::vector<KeyState> found = {}) {
    found.push_back({"sessions/b", session_version_, record::SessionRecord{SessionId("s-b")}});
    step(event::StoreReset{found, version_});
    step(adopted);
    step(event::GuardReport{1, false, {}});
    auto actions = step(event::Tick{});
    actions = step(event::LeaseGranted{find<action::Grant>(actions)->op, true, 7, now_});
    const auto* publish = find<action::Commit>(actions);
    session_ = std::get<record::SessionRecord>(publish->txn.writes.front().value).session;
    step(event::TxnDone{publish->op, Outcome::done, ++version_});
  }
  // The VM, its task and its owner as this daemon finds them.
  static std::vector<KeyState> found(const OwnerRecord& owner) {
    return {{"vms/vm-1", 3, vm()}, {"tasks/task-1", 3, task()}, {"owners/vm-1", 4, owner}};
  }
  static std::vector<KeyState> found(const OwnerRecord& owner, const MotionRecord& motion) {
    auto all = found(owner);
    all.push_back({"motions/vm-1", 5, motion});
    return all;
  }
  Actions step(const Event& event) { return last_ = core_.step(event, now_); }
  Actions put(const std::string& key, record::Any value) {
    ++version_;
    return step(event::StoreChanged{{KeyState{key, version_, std::move(value)}}, version_});
  }
  Actions done(const action::Commit& commit) { return step(event::TxnDone{commit.op, Outcome::done, ++version_}); }
  Actions later(Duration by) {
    now_ += by;
    return step(event::Tick{});
  }

  static record::VmRecord vm() {
    record::VmRecord record;
    record.id = kVm;
    record.spec.name = "web";
    record.spec.memory_mib = 100;
    record.spec.datastore = "slow";
    record.spec.disks.push_back({"root", "", 1 << 20, vm::DiskFormat::qcow2, ""});
    record.desired = record::Desired::running;
    record.active_task = kTask;
    return record;
  }
  static record::TaskRecord task() {
    record::TaskRecord record;
    record.id = kTask;
    record.kind = record::TaskKind::vm_migrate;
    record.vm = kVm;
    record.state = record::TaskState::running;
    return record;
  }
  static OwnerRecord owner(const std::string& host, std::uint64_t epoch, const SessionId& session) {
    OwnerRecord record;
    record.phase = OwnerRecord::Phase::claimed;
    record.host = HostId(host);
    record.epoch = Epoch{epoch};
    record.session = session;
    record.guarded = true;
    return record;
  }
  static MotionRecord motion(const std::string& from, const std::string& to, MotionRecord::Phase phase) {
    MotionRecord record;
    record.id = kTask;
    record.vm = kVm;
    record.from = HostId(from);
    record.to = HostId(to);
    record.epoch = Epoch{4};
    record.phase = phase;
    return record;
  }

  static vm::Relocation disks() { return {"fast", "raw", "", kTask.text}; }
  static record::VmRecord vm_with_new_images() {
    record::VmRecord record = vm();
    record.spec = *vm::relocated(record.spec, disks());
    return record;
  }

  // The VM runs here with epoch 4, and its destination b is ready; this host copies.
  void send(const vm::Relocation& along = {}) {
    begin({{{kVm, Epoch{4}}}, {}, {}}, found(owner("a", 4, SessionId("s-earlier"))));
    const auto* claim = swap_of(last_, "owners/vm-1");
    ASSERT_NE(claim, nullptr);
    done(action::Commit(*claim));
    owner_version_ = version_;
    settle_status();
    auto ready = motion("a", "b", MotionRecord::Phase::ready);
    ready.session_to = SessionId("s-b");
    ready.generation_to = 5;
    ready.disks = along;
    put("motions/vm-1", ready);
    motion_version_ = version_;
    ASSERT_NE(find<action::Send>(last_), nullptr);
  }
  // Answers whatever the agent writes about its status.
  void settle_status() {
    while (const auto* status = swap_of(last_, "status/vm-1")) done(*status);
  }
  action::Commit ask() {
    step(event::MotionReady{kVm, kTask});
    const auto* commit = swap_of(last_, "owners/vm-1");
    EXPECT_NE(commit, nullptr);
    return commit == nullptr ? action::Commit{} : *commit;
  }

  // This host has a QEMU that waits for the VM's memory, and has said so.
  void wait_for_memory(const vm::Relocation& along = {}) {
    begin({}, found(owner("b", 4, SessionId("s-b"))));
    auto preparing = motion("b", "a", MotionRecord::Phase::preparing);
    preparing.disks = along;
    put("motions/vm-1", preparing);
    ASSERT_NE(find<action::Prepare>(last_), nullptr);
    EXPECT_EQ(find<action::Prepare>(last_)->epoch, Epoch{5});
    prepared_ = find<action::Prepare>(last_)->vm;
    step(event::Prepared{kVm, kTask, true, "10.77.1.1:49152", "secret", {}, "PAGEMAP_SCAN"});
    const auto* ready = swap_of(last_, "motions/vm-1");
    ASSERT_NE(ready, nullptr);
    const auto* said = written<MotionRecord>(*ready, "motions/vm-1");
    EXPECT_EQ(said->session_to, session_);
    EXPECT_EQ(said->generation_to, 1u);
    EXPECT_TRUE(insists_on(*ready, {"motions/vm-1", version_}));
    done(action::Commit(*ready));
    motion_version_ = version_;
  }
  OwnerRecord committed_now() {
    return committed_owner(core_.view().motion(kVm)->record, core_.view().owner(kVm)->record);
  }

  Instant now_ = Instant{} + 1000s;
  Version version_ = 10, session_version_ = 2, owner_version_ = 0, motion_version_ = 0;
  SessionId session_;
  Actions last_;
  record::VmRecord prepared_;
  HostCore core_{HostId("a"), Timing{}, 1};
};

TEST_F(MotionStory, commit_insists_on_owner_motion_and_both_sessions) {
  send();
  const auto commit = ask();
  EXPECT_TRUE(insists_on(commit, {"owners/vm-1", owner_version_}));
  EXPECT_TRUE(insists_on(commit, {"motions/vm-1", motion_version_}));
  EXPECT_TRUE(insists_on(commit, {"sessions/b", session_version_}));
  EXPECT_TRUE(insists_on(commit, core_.session().alive_condition()));
  const auto* next = written<OwnerRecord>(commit, "owners/vm-1");
  EXPECT_EQ(next->host, HostId("b"));
  EXPECT_EQ(next->epoch, Epoch{5});
  EXPECT_EQ(next->session, SessionId("s-b"));
  EXPECT_EQ(next->motion, kTask);
  EXPECT_TRUE(next->guarded);
}

TEST_F(MotionStory, commit_with_disks_names_their_new_images_and_leaves_the_old_ones_to_the_source) {
  send(disks());
  const auto commit = ask();
  EXPECT_TRUE(insists_on(commit, {"vms/vm-1", 3}));
  EXPECT_TRUE(insists_on(commit, {"relocations/vm-1", 0}));
  EXPECT_EQ(*written<record::VmRecord>(commit, "vms/vm-1"), vm_with_new_images());
  const auto* left = written<record::RelocationRecord>(commit, "relocations/vm-1");
  ASSERT_NE(left, nullptr);
  EXPECT_EQ(left->phase, record::RelocationRecord::Phase::committed);
  EXPECT_EQ(left->cleaner, HostId("a"));
  EXPECT_EQ(left->old_files, (std::vector<vm::PlacedFile>{{"slow", "root.qcow2"}}));
  EXPECT_EQ(left->old_home, "slow");
}

TEST_F(MotionStory, commit_without_disks_leaves_the_spec_alone) {
  send();
  const auto commit = ask();
  EXPECT_EQ(written<record::VmRecord>(commit, "vms/vm-1"), nullptr);
  EXPECT_EQ(written<record::RelocationRecord>(commit, "relocations/vm-1"), nullptr);
}

TEST_F(MotionStory, motion_that_ends_leaves_the_new_images_to_its_destination) {
  send(disks());
  step(event::MotionFailed{kVm, kTask, Error{Code::failed, "The link is gone."}});
  const auto* end = swap_of(last_, "motions/vm-1");
  ASSERT_NE(end, nullptr);
  EXPECT_TRUE(insists_on(*end, {"relocations/vm-1", 0}));
  const auto* left = written<record::RelocationRecord>(*end, "relocations/vm-1");
  ASSERT_NE(left, nullptr);
  EXPECT_EQ(left->phase, record::RelocationRecord::Phase::abandoned);
  EXPECT_EQ(left->cleaner, HostId("b"));
  EXPECT_EQ(left->new_files, (std::vector<vm::PlacedFile>{{"fast", "root.task-1.raw"}}));
  EXPECT_EQ(left->new_home, "fast");
  EXPECT_EQ(written<record::VmRecord>(*end, "vms/vm-1")->spec, vm().spec);
}

TEST_F(MotionStory, destination_prepares_new_images_and_the_word_of_the_source_alone_does_not_start_them) {
  wait_for_memory(disks());
  EXPECT_EQ(prepared_.spec, vm_with_new_images().spec);
  step(event::Arrived{kVm, kTask, version_ + 1});
  EXPECT_EQ(find<action::Activate>(last_), nullptr);
  put("vms/vm-1", vm_with_new_images());
  put("owners/vm-1", committed_now());
  ASSERT_NE(find<action::Activate>(last_), nullptr);
  EXPECT_EQ(find<action::Activate>(last_)->vm.spec, vm_with_new_images().spec);
}

TEST_F(MotionStory, new_images_of_an_ended_motion_are_deleted_once_what_waited_with_them_is_gone) {
  wait_for_memory(disks());
  record::HostRecord host;
  host.host = HostId("a");
  put("hosts/a", host);
  ++version_;
  const auto abandoned = remains(core_.view().motion(kVm)->record, vm().spec,
                                 record::RelocationRecord::Phase::abandoned);
  step(event::StoreChanged{{{"motions/vm-1", version_, {}}, {"relocations/vm-1", version_, abandoned}}, version_});
  ASSERT_NE(find<action::Kill>(last_), nullptr);
  EXPECT_EQ(find<action::SettleCopy>(last_), nullptr);
  step(event::Exited{kVm, Epoch{5}, ExitKind::killed, "", kTask});
  const auto* settle = find<action::SettleCopy>(last_);
  ASSERT_NE(settle, nullptr);
  EXPECT_EQ(settle->keep, action::Keep::old_images);
  EXPECT_FALSE(settle->relocation.live);
}

TEST_F(MotionStory, commit_that_is_done_tells_the_other_side_and_kills_the_source) {
  send();
  done(ask());
  ASSERT_NE(find<action::CommittedMotion>(last_), nullptr);
  EXPECT_EQ(find<action::CommittedMotion>(last_)->version, version_);
  EXPECT_NE(find<action::Kill>(last_), nullptr);
  EXPECT_EQ(find<action::AbortMotion>(last_), nullptr);
}

TEST_F(MotionStory, commit_that_is_refused_lets_the_guest_go_on_and_ends_the_motion) {
  send();
  step(event::TxnDone{ask().op, Outcome::refused, 0});
  EXPECT_NE(find<action::AbortMotion>(last_), nullptr);
  const auto* end = swap_of(last_, "motions/vm-1");
  ASSERT_NE(end, nullptr);
  EXPECT_EQ(written<record::TaskRecord>(*end, "tasks/task-1")->state, record::TaskState::failed);
  EXPECT_TRUE(written<record::VmRecord>(*end, "vms/vm-1")->active_task.empty());
}

TEST_F(MotionStory, lost_answer_and_an_unchanged_owner_prove_nothing_until_the_record_is_written_again) {
  send();
  const auto commit = ask();
  step(event::TxnDone{commit.op, Outcome::unknown, 0});
  const auto read = *find<action::Read>(last_);
  step(event::KeyRead{read.op, true, {"owners/vm-1", owner_version_, owner("a", 4, session_)}, version_ + 1});
  EXPECT_EQ(find<action::AbortMotion>(last_), nullptr);
  const auto* fence = swap_of(last_, "owners/vm-1");
  ASSERT_NE(fence, nullptr);
  EXPECT_TRUE(insists_on(*fence, {"owners/vm-1", owner_version_}));
  EXPECT_EQ(*written<OwnerRecord>(*fence, "owners/vm-1"), owner("a", 4, session_));
  done(action::Commit(*fence));
  EXPECT_NE(find<action::AbortMotion>(last_), nullptr);
}

TEST_F(MotionStory, lost_answer_of_a_commit_that_was_done_is_found_by_the_read) {
  send();
  const auto commit = ask();
  step(event::TxnDone{commit.op, Outcome::unknown, 0});
  const auto read = *find<action::Read>(last_);
  ++version_;
  step(event::KeyRead{read.op, true, {"owners/vm-1", version_, *written<OwnerRecord>(commit, "owners/vm-1")},
                      version_});
  EXPECT_NE(find<action::CommittedMotion>(last_), nullptr);
  EXPECT_NE(find<action::Kill>(last_), nullptr);
  EXPECT_EQ(find<action::AbortMotion>(last_), nullptr);
}

TEST_F(MotionStory, while_the_store_is_away_an_unsettled_guest_stands_still) {
  send();
  step(event::TxnDone{ask().op, Outcome::unknown, 0});
  for (int second = 0; second < 30; ++second) {
    if (const auto* read = find<action::Read>(last_)) step(event::KeyRead{read->op, false, {}, 0});
    EXPECT_EQ(find<action::AbortMotion>(last_), nullptr) << second;
    later(1s);
  }
  EXPECT_NE(find<action::Read>(last_), nullptr);
}

TEST_F(MotionStory, nothing_is_committed_to_a_destination_whose_session_is_another) {
  send();
  put("sessions/b", record::SessionRecord{SessionId("s-b2")});
  step(event::MotionReady{kVm, kTask});
  EXPECT_EQ(swap_of(last_, "owners/vm-1"), nullptr);
  later(3s);
  EXPECT_NE(find<action::AbortMotion>(last_), nullptr);
}

TEST_F(MotionStory, erased_while_copying_lets_the_guest_go_on_until_it_does) {
  send();
  put("motions/vm-1", {});
  ASSERT_NE(find<action::AbortMotion>(last_), nullptr);
  step(event::MotionAborted{kVm, Epoch{4}, false});
  later(2s);
  EXPECT_NE(find<action::AbortMotion>(last_), nullptr);
  step(event::MotionAborted{kVm, Epoch{4}, true});
  later(2s);
  EXPECT_EQ(find<action::AbortMotion>(last_), nullptr);
}

TEST_F(MotionStory, erased_while_a_commit_is_under_way_waits_for_the_answer) {
  send();
  const auto commit = ask();
  put("motions/vm-1", {});
  EXPECT_EQ(find<action::AbortMotion>(last_), nullptr);
  step(event::MotionFailed{kVm, kTask, Error{Code::failed, "killed"}});
  EXPECT_EQ(find<action::AbortMotion>(last_), nullptr);
  step(event::TxnDone{commit.op, Outcome::refused, 0});
  EXPECT_NE(find<action::AbortMotion>(last_), nullptr);
}

TEST_F(MotionStory, question_that_comes_twice_or_of_another_motion_sends_nothing) {
  send();
  step(event::MotionReady{kVm, TaskId("task-0")});
  EXPECT_EQ(swap_of(last_, "owners/vm-1"), nullptr);
  ask();
  step(event::MotionReady{kVm, kTask});
  EXPECT_EQ(swap_of(last_, "owners/vm-1"), nullptr);
}

TEST_F(MotionStory, guest_found_paused_goes_on_when_a_new_claim_is_done_and_not_before) {
  begin({{}, {{kVm, Epoch{4}}}, {}}, found(owner("a", 4, SessionId("s-earlier"))));
  const auto* claim = swap_of(last_, "owners/vm-1");
  ASSERT_NE(claim, nullptr);
  const action::Commit sent = *claim;
  EXPECT_TRUE(insists_on(sent, {"owners/vm-1", 4}));
  EXPECT_EQ(find<action::AbortMotion>(last_), nullptr);
  EXPECT_EQ(find<action::AbortMotion>(later(1s)), nullptr);
  done(sent);
  later(1s);
  EXPECT_NE(find<action::AbortMotion>(last_), nullptr);
}

TEST_F(MotionStory, guest_found_paused_that_has_moved_is_killed) {
  auto moved = owner("b", 5, SessionId("s-b"));
  moved.motion = kTask;
  step(event::StoreReset{found(moved), version_});
  step(event::Adopted{{}, {{kVm, Epoch{4}}}, {}});
  EXPECT_NE(find<action::Kill>(last_), nullptr);
  EXPECT_EQ(find<action::AbortMotion>(last_), nullptr);
}

TEST_F(MotionStory, motion_that_an_earlier_life_may_have_sent_is_ended_not_sent_again) {
  auto ready = motion("a", "b", MotionRecord::Phase::ready);
  ready.session_to = SessionId("s-b");
  step(event::StoreReset{found(owner("a", 4, SessionId("s-earlier")), ready), version_});
  EXPECT_EQ(find<action::Send>(last_), nullptr);
  const auto* end = swap_of(last_, "motions/vm-1");
  ASSERT_NE(end, nullptr);
  EXPECT_TRUE(insists_on(*end, {"motions/vm-1", 5}));
}

TEST_F(MotionStory, what_waits_for_memory_runs_neither_before_the_commit_nor_on_a_word_about_another_motion) {
  wait_for_memory();
  EXPECT_EQ(find<action::Activate>(last_), nullptr);
  step(event::Arrived{kVm, TaskId("task-0"), version_ + 1});
  EXPECT_EQ(find<action::Activate>(last_), nullptr);
  EXPECT_EQ(find<action::Activate>(later(1s)), nullptr);
  EXPECT_EQ(find<action::Kill>(last_), nullptr);
}

TEST_F(MotionStory, the_word_of_the_source_is_enough_and_the_generation_is_that_of_ready) {
  wait_for_memory();
  step(event::Arrived{kVm, kTask, version_ + 1});
  ASSERT_NE(find<action::Activate>(last_), nullptr);
  EXPECT_EQ(find<action::Activate>(last_)->generation, 1u);
  EXPECT_EQ(find<action::Activate>(last_)->owner.epoch, Epoch{5});
}

TEST_F(MotionStory, contact_that_lapsed_since_ready_demands_a_claim_first) {
  wait_for_memory();
  const auto ours = committed_now();
  step(event::GuardReport{2, false, {}});
  put("owners/vm-1", ours);
  EXPECT_EQ(find<action::Activate>(last_), nullptr);
  const auto* claim = swap_of(last_, "owners/vm-1");
  ASSERT_NE(claim, nullptr);
  EXPECT_EQ(written<OwnerRecord>(*claim, "owners/vm-1")->motion, kTask);
  done(action::Commit(*claim));
  ASSERT_NE(find<action::Activate>(last_), nullptr);
  EXPECT_EQ(find<action::Activate>(last_)->generation, 2u);
}

TEST_F(MotionStory, refusal_of_the_guard_is_not_the_end) {
  wait_for_memory();
  put("owners/vm-1", committed_now());
  step(event::Activated{kVm, Epoch{5}, false, true, {}});
  EXPECT_EQ(find<action::Activate>(last_), nullptr);
  EXPECT_EQ(find<action::Kill>(last_), nullptr);
  later(1s);
  EXPECT_NE(find<action::Activate>(last_), nullptr);
}

TEST_F(MotionStory, commit_that_the_view_knows_first_is_handed_on_before_the_guest_is_ended) {
  send();
  ask();
  const auto committed = committed_now();
  put("owners/vm-1", committed);
  ASSERT_NE(find<action::CommittedMotion>(last_), nullptr);
  EXPECT_EQ(find<action::CommittedMotion>(last_)->version, version_);
  const auto is_kill = [](const ha::Action& each) { return std::holds_alternative<action::Kill>(each); };
  const auto is_word = [](const ha::Action& each) { return std::holds_alternative<action::CommittedMotion>(each); };
  const auto killed = std::find_if(last_.begin(), last_.end(), is_kill);
  EXPECT_NE(killed, last_.end());
  EXPECT_LT(std::find_if(last_.begin(), last_.end(), is_word), killed);
}

// Found by the simulator: both were to run with epoch 5.
TEST_F(MotionStory, late_end_of_a_process_of_an_earlier_motion_does_not_end_the_next_one) {
  wait_for_memory();
  const TaskId earlier("task-0");
  step(event::Exited{kVm, Epoch{5}, ExitKind::qemu_crash, "boom", earlier});
  EXPECT_EQ(swap_of(last_, "motions/vm-1"), nullptr);
  put("motions/vm-1", {});
  EXPECT_NE(find<action::Kill>(last_), nullptr) << "what waits here is still known, and is not needed any more";
}

TEST_F(MotionStory, claim_after_a_takeover_is_no_arrival_though_host_and_epoch_are_the_same) {
  wait_for_memory();
  auto taken = owner("a", 5, SessionId());
  taken.phase = OwnerRecord::Phase::assigned;
  put("owners/vm-1", taken);
  EXPECT_EQ(find<action::Activate>(last_), nullptr);
  EXPECT_NE(find<action::Kill>(last_), nullptr);
  EXPECT_EQ(swap_of(last_, "owners/vm-1"), nullptr);
  step(event::Exited{kVm, Epoch{5}, ExitKind::killed, "", kTask});
  EXPECT_NE(swap_of(last_, "owners/vm-1"), nullptr);
}

TEST_F(MotionStory, what_waits_is_ended_when_the_motion_is_erased) {
  wait_for_memory();
  put("motions/vm-1", {});
  EXPECT_NE(find<action::Kill>(last_), nullptr);
}

TEST_F(MotionStory, arrived_and_running_ends_the_task_tells_the_datastore_and_only_then_erases_the_motion) {
  wait_for_memory();
  put("owners/vm-1", committed_now());
  step(event::Activated{kVm, Epoch{5}, true, false, {}});
  if (find<action::RecordOwner>(last_) == nullptr) ADD_FAILURE() << "the datastore is not told";
  const auto* status = swap_of(last_, "status/vm-1");
  ASSERT_NE(status, nullptr);
  EXPECT_EQ(written<record::TaskRecord>(*status, "tasks/task-1")->state, record::TaskState::succeeded);
  EXPECT_EQ(written<record::VmStatus>(*status, "status/vm-1")->memory_tracker, "PAGEMAP_SCAN");
  done(action::Commit(*status));
  EXPECT_EQ(swap_of(last_, "motions/vm-1"), nullptr);
  step(event::OwnerRecorded{kVm, Epoch{5}, true});
  EXPECT_NE(swap_of(last_, "motions/vm-1"), nullptr);
}

TEST_F(MotionStory, restarted_destination_keeps_what_has_arrived_and_claims_it_before_it_runs) {
  auto committed = motion("b", "a", MotionRecord::Phase::committed);
  committed.session_to = SessionId("s-earlier");
  auto ours = owner("a", 5, SessionId("s-earlier"));
  ours.motion = kTask;
  begin({{}, {}, {{kVm, Epoch{5}}}}, found(ours, committed));
  EXPECT_EQ(find<action::Kill>(last_), nullptr);
  EXPECT_EQ(find<action::Activate>(last_), nullptr);
  const auto* claim = swap_of(last_, "owners/vm-1");
  ASSERT_NE(claim, nullptr);
  done(action::Commit(*claim));
  EXPECT_NE(find<action::Activate>(last_), nullptr);
}

TEST_F(MotionStory, restarted_destination_ends_the_motion_before_it_ends_what_waits) {
  auto ready = motion("b", "a", MotionRecord::Phase::ready);
  ready.session_to = SessionId("s-earlier");
  step(event::StoreReset{found(owner("b", 4, SessionId("s-b")), ready), version_});
  step(event::Adopted{{}, {}, {{kVm, Epoch{5}, kTask}}});
  EXPECT_EQ(find<action::Kill>(last_), nullptr);
  const auto* end = swap_of(last_, "motions/vm-1");
  ASSERT_NE(end, nullptr);
  EXPECT_TRUE(insists_on(*end, {"motions/vm-1", 5}));
  done(action::Commit(*end));
  EXPECT_NE(find<action::Kill>(last_), nullptr);
}

}  // namespace
}  // namespace hf::motion
