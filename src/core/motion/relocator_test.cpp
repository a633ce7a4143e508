// Goal: each hand-over of a VM's disks to other images, told as short stories; above all what must not happen.
// Method: one HostCore, a hand-fed store view; actions are looked up by type.
#include "core/motion/relocator.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/ha/host.hpp"
#include "core/ha/testing_actions.hpp"
#include "core/motion/relocation_planner.hpp"

namespace hf::motion {
namespace {

using namespace ha;  // NOLINT: stories are told in its words
using action::Keep;
using record::OwnerRecord;
using record::RelocationRecord;
using Phase = RelocationRecord::Phase;

const VmId kVm("vm-1");
const TaskId kTask("t-1");

bool insists_on(const action::Commit& commit, const std::string& key) {
  return std::any_of(commit.txn.conditions.begin(), commit.txn.conditions.end(),
                     [&](const auto& condition) { return condition.key == key; });
}

// This host is "a"; the VM runs here in epoch 1, from slow:root.qcow2, and is to go to "fast".
class RelocatorStory : public ::testing::Test {
 protected:
  void begin(std::vector<KeyState> more = {}) {
    record::VmRecord vm;
    vm.id = kVm;
    vm.spec.name = "web";
    vm.spec.datastore = "slow";
    vm.spec.disks = {{"root", "", 1 << 20, vm::DiskFormat::qcow2, ""}};
    vm.desired = record::Desired::running;
    vm.active_task = kTask;
    record::TaskRecord task;
    task.id = kTask;
    task.kind = record::TaskKind::vm_migrate;
    task.vm = kVm;
    task.datastore = "fast";
    more.push_back({"vms/vm-1", 3, vm});
    more.push_back({"tasks/t-1", 3, task});
    more.push_back({"owners/vm-1", 4, owner("a", 1)});
    step(event::StoreReset{more, version_});
    event::Adopted adopted;
    adopted.running = {{kVm, Epoch{1}}};
    step(adopted);
    step(event::GuardReport{1, false, {}});
    auto actions = step(event::Tick{});
    actions = step(event::LeaseGranted{find<action::Grant>(actions)->op, true, 7, now_});
    step(event::TxnDone{find<action::Commit>(actions)->op, Outcome::done, ++version_});
    // The session is new: it is claimed again.
    const auto* claim = swap_of(last_, "owners/vm-1");
    ASSERT_NE(claim, nullptr);
    done(*claim);
    if (const auto* status = swap_of(last_, "status/vm-1")) done(*status);
  }
  static OwnerRecord owner(const std::string& host, std::uint64_t epoch) {
    OwnerRecord record;
    record.phase = OwnerRecord::Phase::claimed;
    record.host = HostId(host);
    record.epoch = Epoch{epoch};
    return record;
  }
  static RelocationRecord relocation(Phase phase) {
    RelocationRecord record;
    record.id = kTask;
    record.vm = kVm;
    record.host = HostId("a");
    record.live = true;
    record.epoch = Epoch{1};
    record.phase = phase;
    record.what = {"fast", "", "", "t-1"};
    record.old_files = {{"slow", "root.qcow2"}};
    record.new_files = {{"fast", "root.t-1.qcow2"}};
    return record;
  }
  Actions step(const Event& event) {
    last_ = core_.step(event, now_);
    all_.insert(all_.end(), last_.begin(), last_.end());
    return last_;
  }
  Actions put(const std::string& key, record::Any value) {
    ++version_;
    return step(event::StoreChanged{{KeyState{key, version_, std::move(value)}}, version_});
  }
  Actions done(const action::Commit& commit) { return step(event::TxnDone{commit.op, Outcome::done, ++version_}); }
  Actions later(Duration by) {
    now_ += by;
    return step(event::Tick{});
  }
  // Until the disks are held, and the commit is on its way.
  action::Commit held() {
    begin();
    put("relocations/vm-1", relocation(Phase::copying));
    EXPECT_NE(find<action::Copy>(last_), nullptr);
    step(event::CopyHeld{kVm, kTask, {1, 4096, 10, 0}});
    const auto* commit = swap_of(last_, "relocations/vm-1");
    EXPECT_NE(commit, nullptr);
    return commit == nullptr ? action::Commit{} : *commit;
  }
  std::optional<Keep> settled() const {
    const auto* settle = find<action::SettleCopy>(last_);
    return settle == nullptr ? std::nullopt : std::optional(settle->keep);
  }

  Version version_ = 10;
  Instant now_ = Instant{} + 1000s;
  Actions last_, all_;
  HostCore core_{HostId("a"), Timing::from_heartbeat(1s), 1};
};

TEST_F(RelocatorStory, disks_that_are_equal_and_held_are_committed_with_every_condition) {
  const auto commit = held();
  for (const char* key : {"owners/vm-1", "vms/vm-1", "relocations/vm-1", "sessions/a"}) {
    EXPECT_TRUE(insists_on(commit, key)) << key;
  }
  const auto* vm = written<record::VmRecord>(commit, "vms/vm-1");
  ASSERT_NE(vm, nullptr);
  EXPECT_EQ(vm->spec.datastore, "fast");
  EXPECT_EQ(vm->spec.disks[0].tag, "t-1");
  EXPECT_TRUE(vm->active_task.empty());
  EXPECT_EQ(settled(), std::nullopt);
  done(commit);
  EXPECT_EQ(settled(), Keep::new_images);
}

TEST_F(RelocatorStory, record_is_erased_once_the_old_images_are_deleted) {
  done(held());
  step(event::CopySettled{kVm, kTask, false, 0});
  EXPECT_EQ(swap_of(last_, "relocations/vm-1"), nullptr);
  later(3s);
  EXPECT_EQ(settled(), Keep::new_images);
  step(event::CopySettled{kVm, kTask, true, 2500});
  const auto* erased = swap_of(last_, "relocations/vm-1");
  ASSERT_NE(erased, nullptr);
  EXPECT_EQ(written<RelocationRecord>(*erased, "relocations/vm-1"), nullptr);
  EXPECT_EQ(written<record::TaskRecord>(*erased, "tasks/t-1")->relocation.held_us, 2500U);
}

TEST_F(RelocatorStory, commit_that_was_refused_lets_the_guest_go_on_at_once_with_the_old_images) {
  const auto commit = held();
  step(event::TxnDone{commit.op, Outcome::refused, 0});
  EXPECT_EQ(settled(), Keep::old_images);
  const auto* end = swap_of(last_, "relocations/vm-1");
  ASSERT_NE(end, nullptr);
  EXPECT_EQ(written<RelocationRecord>(*end, "relocations/vm-1")->phase, Phase::abandoned);
}

TEST_F(RelocatorStory, commit_of_unknown_outcome_keeps_the_guest_waiting_until_the_record_tells) {
  const auto commit = held();
  step(event::TxnDone{commit.op, Outcome::unknown, 0});
  EXPECT_EQ(settled(), std::nullopt);
  const auto* fence = swap_of(last_, "relocations/vm-1");
  ASSERT_NE(fence, nullptr);
  step(event::CopyFailed{kVm, kTask, Error{Code::failed, "its QEMU is odd"}});
  EXPECT_EQ(settled(), std::nullopt);
  later(5s);
  EXPECT_EQ(settled(), std::nullopt);
  // The commit had been done: the fence is refused, and the watch tells.
  auto vm = core_.view().vms.at(kVm).record;
  vm.active_task = TaskId();
  put("vms/vm-1", vm);
  put("relocations/vm-1", relocation(Phase::committed));
  EXPECT_EQ(settled(), Keep::new_images);
}

TEST_F(RelocatorStory, unknown_commit_that_was_fenced_leaves_the_old_images) {
  const auto commit = held();
  step(event::TxnDone{commit.op, Outcome::unknown, 0});
  done(*swap_of(last_, "relocations/vm-1"));
  EXPECT_EQ(settled(), Keep::old_images);
}

TEST_F(RelocatorStory, restarted_daemon_settles_nothing_before_it_has_fenced_its_predecessor) {
  begin({{"relocations/vm-1", 5, relocation(Phase::copying)}});
  EXPECT_EQ(find<action::Copy>(last_), nullptr);
  EXPECT_EQ(find<action::SettleCopy>(all_), nullptr);
  const auto* fence = swap_of(all_, "relocations/vm-1");
  ASSERT_NE(fence, nullptr);
  EXPECT_EQ(written<RelocationRecord>(*fence, "relocations/vm-1")->phase, Phase::abandoned);
  done(*fence);
  EXPECT_EQ(settled(), Keep::old_images);
}

TEST_F(RelocatorStory, restarted_daemon_takes_the_new_images_of_a_committed_one) {
  begin({{"relocations/vm-1", 5, relocation(Phase::committed)}});
  const auto* settle = find<action::SettleCopy>(all_);
  ASSERT_NE(settle, nullptr);
  EXPECT_EQ(settle->keep, Keep::new_images);
}

TEST_F(RelocatorStory, vm_that_was_taken_over_is_left_alone) {
  held();
  put("owners/vm-1", owner("b", 2));
  EXPECT_EQ(settled(), std::nullopt);
  put("relocations/vm-1", relocation(Phase::abandoned));
  EXPECT_EQ(settled(), Keep::none);
}

TEST_F(RelocatorStory, cancel_before_the_commit_leaves_the_old_images) {
  begin();
  put("relocations/vm-1", relocation(Phase::copying));
  const auto txn = abandoning(kVm, kTask, Error{Code::conflict, "It was cancelled."}, core_.view());
  ASSERT_TRUE(txn.has_value());
  put("relocations/vm-1", relocation(Phase::abandoned));
  EXPECT_EQ(settled(), Keep::old_images);
}

TEST_F(RelocatorStory, copy_without_a_sign_of_life_is_given_up) {
  begin();
  put("relocations/vm-1", relocation(Phase::copying));
  later(30s);
  step(event::CopyProgress{kVm, kTask, 10});
  later(40s);
  EXPECT_EQ(settled(), std::nullopt);
  later(21s);
  EXPECT_EQ(settled(), Keep::old_images);
}

TEST_F(RelocatorStory, claim_insists_on_the_spec_that_it_starts_the_vm_from) {
  begin();
  step(event::Exited{kVm, Epoch{1}, ha::ExitKind::qemu_crash, "", {}});
  const auto* claim = swap_of(last_, "owners/vm-1");
  ASSERT_NE(claim, nullptr);
  EXPECT_TRUE(insists_on(*claim, "vms/vm-1"));
}

TEST_F(RelocatorStory, files_of_a_motion_that_failed_are_deleted_though_another_brought_the_vm_under_its_epoch) {
  begin();
  RelocationRecord left;
  left.id = TaskId("t-failed");
  left.vm = kVm;
  left.host = left.cleaner = HostId("a");
  left.epoch = Epoch{0};  // the next one is that of the VM here
  left.phase = Phase::abandoned;
  put("relocations/vm-1", left);
  const auto* settle = find<action::SettleCopy>(last_);
  ASSERT_NE(settle, nullptr);
  EXPECT_EQ(settle->keep, Keep::old_images);
  step(event::CopySettled{kVm, left.id, true, 0});
  EXPECT_NE(swap_of(last_, "relocations/vm-1"), nullptr);
}

// --- what the leader asks first

class Relocating : public ::testing::Test {
 protected:
  Relocating() {
    for (const char* name : {"a", "b"}) {
      record::HostRecord host;
      host.host = HostId(name);
      host.datastores = {{"ds-1", "/mnt/1"}, {"ds-2", "/mnt/2"}};
      put("hosts/" + host.host.text, host);
      health_[host.host] = {Health::alive, ""};
    }
    for (const char* id : {"ds-1", "ds-2"}) {
      record::DatastoreRecord datastore;
      datastore.id = DatastoreId(id);
      datastore.name = id;
      put("datastores/" + datastore.name, datastore);
    }
    record::VmRecord vm;
    vm.id = kVm;
    vm.spec.name = "web";
    vm.spec.datastore = "ds-1";
    vm.spec.disks = {{"root", "", 1 << 20, vm::DiskFormat::qcow2, ""}};
    vm.active_task = kTask;
    put("vms/vm-1", vm);
    record::TaskRecord task;
    task.id = kTask;
    task.kind = record::TaskKind::vm_migrate;
    task.vm = kVm;
    task.datastore = "ds-2";
    put("tasks/t-1", task);
    put("leader", record::LeaderRecord{HostId("b"), SessionId("s")});
  }
  void put(const std::string& key, record::Any value) {
    ++version_;
    view_.apply({{key, version_, std::move(value)}}, version_);
  }
  void run_on(const std::string& host) {
    auto vm = view_.vms.at(kVm).record;
    vm.desired = record::Desired::running;
    put("vms/vm-1", vm);
    OwnerRecord owner;
    owner.phase = OwnerRecord::Phase::claimed;
    owner.host = HostId(host);
    owner.epoch = Epoch{1};
    put("owners/vm-1", owner);
    record::VmStatus status;
    status.state = record::VmState::running;
    status.epoch = Epoch{1};
    put("status/vm-1", status);
  }
  Answer ask(const vm::Relocation& what) { return check_relocation({view_, health_, kVm, what}); }
  std::vector<action::Commit> tick() {
    Actions out;
    planner_.tick({view_, session_, health_, now_}, out);
    std::vector<action::Commit> commits;
    for (const auto& action : out) commits.push_back(std::get<action::Commit>(action));
    return commits;
  }

  View view_;
  Version version_ = 0;
  std::map<HostId, Assessment> health_;
  Instant now_ = Instant{} + 1000s;
  OpId next_op_ = 1;
  Session session_{HostId("b"), {}, [this] { return next_op_++; }, [] { return SessionId("s"); }};
  RelocationPlanner planner_{10s, [this] { return next_op_++; }};
};

TEST_F(Relocating, running_vm_is_copied_by_its_host_and_one_that_is_off_by_any) {
  EXPECT_EQ(ask({"ds-2", "", "", "t-1"}).to, HostId("a"));
  run_on("b");
  EXPECT_EQ(ask({"ds-2", "", "", "t-1"}).to, HostId("b"));
}

TEST_F(Relocating, every_reason_is_told_at_once) {
  run_on("b");
  auto vm = view_.vms.at(kVm).record;
  vm.spec.firmware = vm::Firmware::uefi;
  put("vms/vm-1", vm);
  auto host = view_.hosts.at(HostId("b")).record;
  host.datastores.erase("ds-2");
  put("hosts/b", host);
  put("relocations/vm-1", RelocationRecord{});
  const auto answer = ask({"ds-2", "", "", "t-1"});
  EXPECT_TRUE(answer.to.empty());
  EXPECT_EQ(answer.reasons.size(), 3U);
  EXPECT_EQ(ask({"ds-9", "", "", "t-1"}).reasons.size(), 3U);
}

TEST_F(Relocating, task_becomes_a_record_that_names_what_is_made_and_left) {
  run_on("b");
  const auto commits = tick();
  ASSERT_EQ(commits.size(), 1U);
  const auto* record = written<RelocationRecord>(commits[0], "relocations/vm-1");
  ASSERT_NE(record, nullptr);
  EXPECT_TRUE(record->live);
  EXPECT_EQ(record->host, HostId("b"));
  EXPECT_EQ(record->old_home, "ds-1");
  const std::vector<vm::PlacedFile> made = {{"ds-2", "root.t-1.qcow2"}};
  EXPECT_EQ(record->new_files, made);
  for (const char* key : {"owners/vm-1", "vms/vm-1", "motions/vm-1", "leader"}) {
    EXPECT_TRUE(insists_on(commits[0], key)) << key;
  }
  EXPECT_TRUE(tick().empty());  // it is on its way
}

TEST_F(Relocating, host_without_contact_and_lost_owner_end_it) {
  run_on("b");
  auto record = *written<RelocationRecord>(tick().at(0), "relocations/vm-1");
  put("relocations/vm-1", record);
  EXPECT_TRUE(tick().empty());
  health_[HostId("b")] = {Health::unknown, ""};
  now_ += 9s;
  EXPECT_TRUE(tick().empty());
  now_ += 2s;
  const auto ended = tick();
  ASSERT_EQ(ended.size(), 1U);
  EXPECT_EQ(written<RelocationRecord>(ended[0], "relocations/vm-1")->phase, Phase::abandoned);
  EXPECT_EQ(written<record::TaskRecord>(ended[0], "tasks/t-1")->state, record::TaskState::failed);
}

TEST_F(Relocating, vm_and_disks_do_not_move_at_once) {
  run_on("b");
  put("relocations/vm-1", RelocationRecord{});
  const auto answer = check({view_, health_, use_of_hosts(view_, health_), kVm, HostId("a")});
  EXPECT_FALSE(answer.reasons.empty());
}

TEST_F(Relocating, what_is_left_is_deleted_by_the_host_that_has_the_vm) {
  RelocationRecord record;
  record.vm = kVm;
  record.host = HostId("a");
  EXPECT_EQ(cleaner(record, view_), HostId("a"));
  record.host = HostId("removed");
  EXPECT_EQ(cleaner(record, view_), HostId("b"));  // the leader
  run_on("b");
  record.host = HostId("a");
  EXPECT_EQ(cleaner(record, view_), HostId("b"));
}

}  // namespace
}  // namespace hf::motion
