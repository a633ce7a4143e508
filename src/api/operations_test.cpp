// Goal: each command is one conditional write; what contradicts it is refused with the code and the sentence
// people see; a lost reply neither doubles nor loses a command. Method: the operations over a store in
// memory.
#include "api/operations.hpp"

#include <gtest/gtest.h>

#include "api/testing_cluster.hpp"
#include "api/to_json.hpp"

namespace hf::api {
namespace {
namespace key = record::key;
using record::Desired;
using record::TaskState;

class OperationsTest : public ::testing::Test {
 protected:
  TestingCluster cluster_;
  TestingStore& store_ = cluster_.store;
  Operations& operations_ = cluster_.operations;
  Actor by_{"tester", {}};

  template <class T>
  void expect_error(const Result<T>& result, Code code, const std::string& what) {
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.code(), code);
    EXPECT_EQ(result.error().what, what);
  }
  record::TaskRecord created(const std::string& name, std::uint64_t memory = 512) {
    auto task = operations_.create_vm(cluster_.spec(name, memory), "", by_);
    EXPECT_TRUE(task.ok()) << task.error().what;
    return *task;
  }
  void finish(const record::TaskRecord& task) { ASSERT_TRUE(operations_.finish_task(task.id, {}).ok()); }
  record::TaskRecord task(const TaskId& id) { return *show_task(store_, id.text); }
  // host2 is of the version before level 2.
  void make_a_host_old() {
    auto cluster = *record::decode<record::ClusterRecord>(store_.get(key::kCluster)->value);
    cluster.level = 1;
    store_.put(key::kCluster, record::encode(cluster));
    auto host = *record::decode<record::HostRecord>(store_.get(key::kHosts + "host2")->value);
    host.level = 1;
    store_.put(key::kHosts + "host2", record::encode(host));
  }
};

TEST_F(OperationsTest, create_makes_vm_name_and_task_together) {
  const auto task = created("web");
  EXPECT_EQ(task.kind, record::TaskKind::vm_create);
  EXPECT_EQ(task.host.text, "host1");
  const auto view = show_vm(store_, "web");
  ASSERT_TRUE(view.ok());
  EXPECT_EQ(view->vm.active_task, task.id);
  EXPECT_EQ(view->vm.desired, Desired::stopped);
  EXPECT_TRUE(view->vm.spec.nics[0].mac.starts_with("52:54:00:"));
  EXPECT_EQ(show_vm(store_, view->vm.id.text)->vm.spec.name, "web");
}

TEST_F(OperationsTest, create_is_refused_for_a_taken_name) {
  finish(created("web"));
  expect_error(operations_.create_vm(cluster_.spec("web", 512), "", by_), Code::exists,
               "There is a VM named web already: choose another name.");
}

TEST_F(OperationsTest, create_that_loses_the_race_for_a_name_is_exists) {
  store_.before_commit = [this] { store_.put(key::kVmNames + "web", "vm-other"); };
  EXPECT_EQ(operations_.create_vm(cluster_.spec("web", 512), "", by_).code(), Code::exists);
  EXPECT_TRUE(list_tasks(store_, 10)->empty());
}

TEST_F(OperationsTest, create_is_refused_for_what_does_not_exist) {
  auto spec = cluster_.spec("web", 512);
  spec.datastore = "gold";
  expect_error(operations_.create_vm(spec, "", by_), Code::not_found,
               "VM web names datastore gold, which does not exist: `holdfast datastore ls` lists them.");
  spec = cluster_.spec("web", 512);
  spec.nics[0].network = "dmz";
  expect_error(operations_.create_vm(spec, "", by_), Code::not_found,
               "VM web names network dmz, which does not exist: `holdfast network ls` lists them.");
  spec = cluster_.spec("web", 512);
  spec.cdroms = {{"install", "isos:debian.iso"}};
  EXPECT_EQ(operations_.create_vm(spec, "", by_).code(), Code::not_found);
}

TEST_F(OperationsTest, create_is_refused_when_larger_than_any_host) {
  expect_error(operations_.create_vm(cluster_.spec("web", 99999), "", by_), Code::no_room,
               "No host can hold 99999 MiB; the largest, host1, has 4096 MiB for VMs.");
}

TEST_F(OperationsTest, create_is_refused_for_a_bad_name) {
  for (const auto* name : {"", "Web", "-web", "a/b", "a b"}) {
    EXPECT_EQ(operations_.create_vm(cluster_.spec(name, 512), "", by_).code(), Code::invalid) << name;
  }
}

TEST_F(OperationsTest, create_is_refused_for_a_mac_of_another_vm) {
  auto spec = cluster_.spec("web", 512);
  spec.nics[0].mac = "52:54:00:00:00:01";
  ASSERT_TRUE(operations_.create_vm(spec, "", by_).ok());
  spec.name = "db";
  expect_error(operations_.create_vm(spec, "", by_), Code::exists,
               "VM web has the MAC address 52:54:00:00:00:01 already.");
}

TEST_F(OperationsTest, create_goes_to_a_host_that_has_the_datastore) {
  auto spec = cluster_.spec("web", 512);
  spec.datastore = "local2";  // only host2 has it
  EXPECT_EQ(operations_.create_vm(spec, "", by_)->host.text, "host2");
  store_.erase(key::kSessions + "host2");
  spec.name = "db";
  EXPECT_EQ(operations_.create_vm(spec, "", by_).code(), Code::unavailable);
}

TEST_F(OperationsTest, import_runs_where_the_image_is) {
  auto spec = cluster_.spec("web", 512);
  spec.disks[0].import_from = "/srv/debian.qcow2";
  const auto task = operations_.create_vm(spec, "host2", by_);
  ASSERT_TRUE(task.ok()) << task.error().what;
  EXPECT_EQ(task->kind, record::TaskKind::vm_import);
  EXPECT_EQ(task->host.text, "host2");
}

TEST_F(OperationsTest, a_busy_vm_refuses_commands) {
  const auto task = created("web");
  const std::string sentence =
      "VM web is busy: vm.create (task " + task.id.text + ") is under way. Try again when it has ended.";
  expect_error(operations_.start_vm("web", "", by_), Code::conflict, sentence);
  expect_error(operations_.stop_vm("web", 0, by_), Code::conflict, sentence);
  expect_error(operations_.kill_vm("web", by_), Code::conflict, sentence);
  expect_error(operations_.delete_vm("web", by_), Code::conflict, sentence);
}

TEST_F(OperationsTest, start_sets_desired_with_the_task) {
  finish(created("web"));
  const auto task = operations_.start_vm("web", "host2", by_);
  ASSERT_TRUE(task.ok()) << task.error().what;
  const auto vm = show_vm(store_, "web")->vm;
  EXPECT_EQ(vm.desired, Desired::running);
  EXPECT_EQ(vm.pinned_host, "host2");
  EXPECT_EQ(vm.active_task, task->id);
}

TEST_F(OperationsTest, start_is_refused_while_it_runs) {
  cluster_.run_vm("web", "host2", 512);
  expect_error(operations_.start_vm("web", "", by_), Code::invalid, "VM web is running on host2 already.");
}

TEST_F(OperationsTest, start_is_refused_without_room) {
  cluster_.run_vm("a", "host1", 3900);
  cluster_.run_vm("b", "host2", 1024);
  finish(created("web", 2000));
  expect_error(operations_.start_vm("web", "", by_), Code::no_room,
               "No host has 2000 MiB free; host2 has most with 1024 MiB.");
  expect_error(operations_.start_vm("web", "host1", by_), Code::no_room,
               "Host host1 has 196 MiB free; VM web needs 2000 MiB.");
  store_.erase(key::kSessions + "host2");
  expect_error(operations_.start_vm("web", "", by_), Code::no_room,
               "No host has 2000 MiB free; host1 has most with 196 MiB.");
  expect_error(operations_.start_vm("web", "host2", by_), Code::unavailable,
               "Host host2 is not connected to the cluster now.");
  expect_error(operations_.start_vm("web", "host9", by_), Code::not_found,
               "There is no host named host9: `holdfast host ls` lists them.");
}

TEST_F(OperationsTest, stop_sets_desired_and_keeps_the_timeout) {
  cluster_.run_vm("web", "host1", 512);
  const auto task = operations_.stop_vm("web", 7, by_);
  ASSERT_TRUE(task.ok());
  EXPECT_EQ(task->timeout_seconds, 7);
  EXPECT_EQ(show_vm(store_, "web")->vm.desired, Desired::stopped);
  EXPECT_EQ(operations_.stop_vm("web", -1, by_).code(), Code::invalid);
}

TEST_F(OperationsTest, stop_kill_and_reset_are_refused_for_a_stopped_vm) {
  finish(created("web"));
  const std::string sentence = "VM web is not running. Start it: holdfast vm start web.";
  expect_error(operations_.stop_vm("web", 0, by_), Code::invalid, sentence);
  expect_error(operations_.kill_vm("web", by_), Code::invalid, sentence);
  expect_error(operations_.reset_vm("web", by_), Code::invalid, sentence);
}

TEST_F(OperationsTest, kill_overrides_a_running_stop) {
  cluster_.run_vm("web", "host1", 512);
  const auto stop = operations_.stop_vm("web", 0, by_);
  const auto kill = operations_.kill_vm("web", by_);
  ASSERT_TRUE(kill.ok()) << kill.error().what;
  EXPECT_EQ(task(stop->id).state, TaskState::failed);
  EXPECT_EQ(task(stop->id).error_code, "conflict");
  EXPECT_EQ(task(stop->id).message, "It was overridden by task " + kill->id.text + " (vm.kill).");
  EXPECT_EQ(show_vm(store_, "web")->vm.active_task, kill->id);
  ASSERT_TRUE(operations_.finish_task(stop->id, {}).ok());  // late: changes nothing
  EXPECT_EQ(task(stop->id).state, TaskState::failed);
  EXPECT_EQ(show_vm(store_, "web")->vm.active_task, kill->id);
}

TEST_F(OperationsTest, migrate_makes_a_task_and_leaves_the_vm_as_it_is) {
  cluster_.run_vm("web", "host1", 512);
  const auto before = show_vm(store_, "web");
  record::MotionLimits limits;
  limits.encryption = record::Encryption::off;
  limits.bandwidth_mbit = 500;
  limits.max_stop_ms = 40;
  const auto task = operations_.migrate_vm("web", {HostId("host2"), limits}, by_);
  ASSERT_TRUE(task.ok()) << task.error().what;
  EXPECT_EQ(task->kind, record::TaskKind::vm_migrate);
  EXPECT_EQ(task->state, TaskState::queued);
  EXPECT_EQ(task->to.text, "host2");
  EXPECT_EQ(task->limits, limits);
  EXPECT_EQ(this->task(task->id), *task);
  auto expected = before->vm;
  expected.active_task = task->id;
  EXPECT_EQ(show_vm(store_, "web")->vm, expected);
  EXPECT_EQ(show_vm(store_, "web")->owner, before->owner);
  EXPECT_TRUE(store_.list(key::kMotions)->entries.empty()) << "that is the leader's";
}

TEST_F(OperationsTest, migrate_is_refused_before_anything_is_changed) {
  cluster_.run_vm("web", "host1", 512);
  finish(created("off"));
  const auto before = store_.list("")->version;
  EXPECT_EQ(operations_.migrate_vm("none", {}, by_).code(), Code::not_found);
  expect_error(operations_.migrate_vm("web", {HostId("host9"), {}}, by_), Code::invalid,
               "There is no host named host9: `holdfast host ls` lists them.");
  expect_error(operations_.migrate_vm("web", {HostId("host1"), {}}, by_), Code::invalid,
               "VM web is on host1 already.");
  expect_error(operations_.migrate_vm("off", {}, by_), Code::invalid,
               "VM off is not running. Start it: holdfast vm start off.");
  expect_error(operations_.migrate_vm("web", {{}, {{}, kBandwidthMbitMax + 1, 0}}, by_), Code::invalid,
               "The bandwidth of a vMotion is 1 to 1000000 Mbit/s, or 0: no limit.");
  for (const int ms : {-1, kMaxStopMsMax + 1}) {
    expect_error(operations_.migrate_vm("web", {{}, {{}, 0, ms}}, by_), Code::invalid,
                 "The longest stop of a vMotion is 1 to 10000 ms, or 0: the default.");
  }
  EXPECT_EQ(store_.list("")->version, before);
}

TEST_F(OperationsTest, a_vm_that_moves_refuses_commands_and_says_how_to_cancel) {
  cluster_.run_vm("web", "host1", 512);
  const auto task = operations_.migrate_vm("web", {}, {"tester", TaskId("t-move")});
  ASSERT_TRUE(task.ok()) << task.error().what;
  const std::string sentence =
      "VM web is busy: vm.migrate (task t-move) is under way. Try again when it has ended, or cancel it: holdfast "
      "task cancel t-move.";
  expect_error(operations_.migrate_vm("web", {}, by_), Code::conflict, sentence);
  expect_error(operations_.stop_vm("web", 0, by_), Code::conflict, sentence);
}

TEST_F(OperationsTest, kill_of_a_vm_that_moves_ends_the_motion_in_the_same_swap) {
  cluster_.run_vm("web", "host1", 512);
  const auto motion = cluster_.begin_motion("web", TaskId("t-move"));
  const auto killed = operations_.kill_vm("web", by_);
  ASSERT_TRUE(killed.ok()) << killed.error().what;
  EXPECT_EQ(store_.get(key::kMotions + motion.vm.text).code(), Code::not_found);
  const auto task = show_task(store_, "t-move");
  EXPECT_EQ(task->state, TaskState::failed);
  EXPECT_NE(task->message.find("overridden"), std::string::npos);
  EXPECT_NE(task->finished, 0);
  EXPECT_EQ(show_vm(store_, "web")->vm.active_task, killed->id);
  EXPECT_EQ(show_vm(store_, "web")->vm.desired, Desired::stopped);
}

TEST_F(OperationsTest, kill_of_a_vm_that_has_arrived_leaves_the_note_of_its_motion) {
  cluster_.run_vm("web", "host1", 512);
  auto motion = cluster_.begin_motion("web", TaskId("t-move"));
  motion.phase = record::MotionRecord::Phase::committed;
  store_.put(key::kMotions + motion.vm.text, record::encode(motion));
  ASSERT_TRUE(operations_.kill_vm("web", by_).ok());
  EXPECT_TRUE(store_.get(key::kMotions + motion.vm.text).ok());
}

TEST_F(OperationsTest, memory_of_a_vm_on_its_way_is_used_at_both_hosts) {
  cluster_.run_vm("web", "host1", 512);
  cluster_.begin_motion("web", TaskId("t-move"));
  EXPECT_EQ(show_host(store_, "host1")->memory_used_mib, 512u);
  EXPECT_EQ(show_host(store_, "host2")->memory_used_mib, 512u);
  finish(created("db", 1800));
  expect_error(operations_.start_vm("db", "host2", by_), Code::no_room,
               "Host host2 has 1536 MiB free; VM db needs 1800 MiB.");
}

TEST_F(OperationsTest, a_dry_run_says_where_a_vm_would_go) {
  cluster_.run_vm("web", "host1", 512);
  const auto before = store_.list("")->version;
  for (const auto* to : {"", "host2"}) {
    const auto answer = operations_.check_migration("web", {HostId(to), {}});
    ASSERT_TRUE(answer.ok()) << answer.error().what;
    EXPECT_EQ(answer->to.text, "host2");
    EXPECT_TRUE(answer->reasons.empty());
  }
  EXPECT_EQ(store_.list("")->version, before);
}

TEST_F(OperationsTest, a_dry_run_gives_every_reason_and_changes_nothing) {
  using Reasons = std::vector<std::string>;
  cluster_.run_vm("web", "host1", 3000);
  finish(created("off"));
  store_.erase(key::kSessions + "host1");
  const auto before = store_.list("")->version;
  EXPECT_EQ(operations_.check_migration("web", {HostId("host2"), {}})->reasons,
            (Reasons{"Host host1, where VM web is, has no contact to the cluster.",
                     "host2 has 2048 of 2048 MiB free."}));
  EXPECT_EQ(operations_.check_migration("off", {HostId("host9"), {}})->reasons,
            (Reasons{"VM off does not run now; only a running VM can be moved so.",
                     "host9 is not a host of this cluster."}));
  EXPECT_EQ(operations_.check_migration("none", {}).code(), Code::not_found);
  EXPECT_EQ(operations_.check_migration("web", {{}, {{}, 0, -1}}).code(), Code::invalid);
  EXPECT_EQ(store_.list("")->version, before);
}

TEST_F(OperationsTest, a_dry_run_names_the_command_under_way) {
  cluster_.run_vm("web", "host1", 512);
  const auto stop = operations_.stop_vm("web", 0, by_);
  const auto answer = operations_.check_migration("web", {});
  ASSERT_TRUE(answer.ok()) << answer.error().what;
  EXPECT_EQ(answer->to.text, "");
  EXPECT_EQ(answer->reasons, std::vector<std::string>{"VM web is busy: vm.stop (task " + stop->id.text +
                                                      ") is under way. Try again when it has ended."});
}

TEST_F(OperationsTest, a_vm_in_motion_says_so_without_the_token) {
  cluster_.run_vm("web", "host1", 512);
  const auto motion = cluster_.begin_motion("web", TaskId("t-move"));
  ASSERT_TRUE(operations_.report_progress(motion.id, 40, "").ok());
  for (const auto& view : {*show_vm(store_, "web"), list_vms(store_)->at(0)}) {
    ASSERT_TRUE(view.motion.has_value());
    EXPECT_EQ(view.motion->to.text, "host2");
    EXPECT_EQ(view.motion->progress, 40);
    EXPECT_EQ(to_json(view).find(motion.token), std::string::npos);
  }
  cluster_.commit_motion(motion);
  EXPECT_FALSE(show_vm(store_, "web")->motion.has_value());
}

TEST_F(OperationsTest, cancel_of_a_queued_migration_ends_its_task) {
  cluster_.run_vm("web", "host1", 512);
  const auto task = operations_.migrate_vm("web", {}, by_);
  for (int times = 0; times < 2; ++times) {
    const auto ended = operations_.cancel_task(task->id.text);
    ASSERT_TRUE(ended.ok()) << ended.error().what;
    EXPECT_EQ(ended->state, TaskState::failed);
    EXPECT_EQ(ended->error_code, "conflict");
    EXPECT_EQ(ended->message, "It was cancelled.");
    EXPECT_NE(ended->finished, 0);
  }
  EXPECT_TRUE(show_vm(store_, "web")->vm.active_task.empty());
  EXPECT_TRUE(operations_.migrate_vm("web", {}, by_).ok());
}

TEST_F(OperationsTest, cancel_of_a_motion_takes_its_record_away) {
  cluster_.run_vm("web", "host1", 512);
  const auto motion = cluster_.begin_motion("web", TaskId("t-move"));
  const auto ended = operations_.cancel_task("t-move");
  ASSERT_TRUE(ended.ok()) << ended.error().what;
  EXPECT_EQ(ended->message, "It was cancelled.");
  EXPECT_NE(ended->finished, 0);
  EXPECT_EQ(store_.get(key::kMotions + motion.vm.text).code(), Code::not_found);
  EXPECT_TRUE(show_vm(store_, "web")->vm.active_task.empty());
  EXPECT_EQ(show_vm(store_, "web")->owner->host.text, "host1");
}

TEST_F(OperationsTest, cancel_after_the_commit_is_too_late) {
  cluster_.run_vm("web", "host1", 512);
  const auto motion = cluster_.begin_motion("web", TaskId("t-move"));
  cluster_.commit_motion(motion);
  const auto too_late = [&] {
    expect_error(operations_.cancel_task("t-move"), Code::conflict, "Too late: VM web runs on host2 already.");
  };
  too_late();
  ASSERT_TRUE(store_.get(key::kMotions + motion.vm.text).ok());
  store_.erase(key::kMotions + motion.vm.text);
  too_late();
  ASSERT_TRUE(operations_.finish_task(TaskId("t-move"), {}).ok());
  too_late();
  EXPECT_EQ(task(TaskId("t-move")).state, TaskState::succeeded);
}

TEST_F(OperationsTest, cancel_that_loses_against_the_commit_or_the_plan_looks_again) {
  cluster_.run_vm("web", "host1", 512);
  const auto motion = cluster_.begin_motion("web", TaskId("t-move"));
  store_.before_commit = [&] { cluster_.commit_motion(motion); };
  EXPECT_EQ(operations_.cancel_task("t-move").code(), Code::conflict);
  EXPECT_EQ(show_vm(store_, "web")->owner->host.text, "host2");

  cluster_.run_vm("db", "host1", 512);
  const auto queued = operations_.migrate_vm("db", {}, by_);
  store_.before_commit = [&] {
    auto planned = motion;
    planned.id = queued->id;
    planned.vm = queued->vm;
    store_.put(key::kMotions + queued->vm.text, record::encode(planned));
  };
  ASSERT_TRUE(operations_.cancel_task(queued->id.text).ok());
  EXPECT_EQ(store_.get(key::kMotions + queued->vm.text).code(), Code::not_found);
  EXPECT_EQ(task(queued->id).message, "It was cancelled.");
}

TEST_F(OperationsTest, a_cancel_whose_reply_is_lost_is_read_back) {
  cluster_.run_vm("web", "host1", 512);
  cluster_.begin_motion("web", TaskId("t-move"));
  store_.faults = {TestingStore::Fault::reply_lost};
  const auto ended = operations_.cancel_task("t-move");
  ASSERT_TRUE(ended.ok()) << ended.error().what;
  EXPECT_EQ(ended->state, TaskState::failed);
}

TEST_F(OperationsTest, cancel_is_refused_for_other_tasks) {
  cluster_.run_vm("web", "host1", 512);
  const auto stop = operations_.stop_vm("web", 0, by_);
  expect_error(operations_.cancel_task(stop->id.text), Code::unsupported,
               "Task " + stop->id.text + " is a vm.stop, which cannot be cancelled: only a vm.migrate can.");
  expect_error(operations_.cancel_task("t-none"), Code::not_found,
               "There is no task t-none: `holdfast task ls` lists them.");
}

TEST_F(OperationsTest, move_of_disks_makes_a_task_of_a_vm_that_runs_or_is_off) {
  cluster_.run_vm("web", "host1", 512);
  finish(created("off"));
  for (const char* name : {"web", "off"}) {
    const auto task = operations_.migrate_vm(name, {{}, {}, "fast", "raw", "root"}, by_);
    ASSERT_TRUE(task.ok()) << task.error().what;
    EXPECT_EQ(task->datastore, "fast");
    EXPECT_EQ(task->disk_format, "raw");
    EXPECT_EQ(task->disk, "root");
    EXPECT_EQ(show_vm(store_, name)->vm.active_task, task->id);
  }
}

TEST_F(OperationsTest, move_of_disks_is_refused_before_anything_is_changed) {
  cluster_.run_vm("web", "host1", 512);
  const auto before = store_.list("")->version;
  EXPECT_EQ(operations_.migrate_vm("web", {{}, {}, "fast", "vmdk", ""}, by_).code(), Code::invalid);
  EXPECT_EQ(operations_.migrate_vm("web", {{}, {}, "fast", "", "none"}, by_).code(), Code::invalid);
  EXPECT_EQ(operations_.migrate_vm("web", {{}, {}, "", "raw", ""}, by_).code(), Code::invalid);
  EXPECT_EQ(operations_.migrate_vm("web", {HostId("host1"), {}, "fast", "", ""}, by_).code(), Code::invalid);
  EXPECT_EQ(store_.list("")->version, before);
}

TEST_F(OperationsTest, move_of_disks_and_choice_of_the_engine_wait_until_every_host_knows_them) {
  cluster_.run_vm("web", "host1", 512);
  make_a_host_old();
  const std::string sentence =
      "This needs a later version of Holdfast on host2. Upgrade every host first (doc/upgrade.md).";
  record::MotionLimits by_qemu;
  by_qemu.engine = record::Engine::qemu;
  for (const Migration& wanted : {Migration{{}, {}, "fast", "", ""}, Migration{{}, by_qemu}}) {
    const auto before = store_.list("")->version;
    expect_error(operations_.migrate_vm("web", wanted, by_), Code::unsupported, sentence);
    expect_error(operations_.check_migration("web", wanted), Code::unsupported, sentence);
    EXPECT_EQ(store_.list("")->version, before);
  }
  EXPECT_TRUE(operations_.migrate_vm("web", {HostId("host2"), {}}, by_).ok()) << "as ever";
}

TEST_F(OperationsTest, cancel_of_a_move_of_disks_abandons_it_and_what_is_left_bars_the_next_one) {
  cluster_.run_vm("web", "host1", 512);
  const auto task = operations_.migrate_vm("web", {{}, {}, "fast", "", ""}, by_);
  ASSERT_TRUE(task.ok()) << task.error().what;
  record::RelocationRecord relocation;
  relocation.id = task->id;
  relocation.vm = task->vm;
  store_.put(key::kRelocations + task->vm.text, record::encode(relocation));
  const auto ended = operations_.cancel_task(task->id.text);
  ASSERT_TRUE(ended.ok()) << ended.error().what;
  EXPECT_EQ(ended->message, "It was cancelled.");
  const auto left = record::decode<record::RelocationRecord>(store_.get(key::kRelocations + task->vm.text)->value);
  EXPECT_EQ(left->phase, record::RelocationRecord::Phase::abandoned);
  EXPECT_TRUE(show_vm(store_, "web")->vm.active_task.empty());
  EXPECT_EQ(operations_.migrate_vm("web", {{}, {}, "fast", "", ""}, by_).code(), Code::conflict);
}

TEST_F(OperationsTest, cancel_is_refused_for_a_migration_that_failed_otherwise) {
  cluster_.run_vm("web", "host1", 512);
  const auto task = operations_.migrate_vm("web", {}, by_);
  ASSERT_TRUE(operations_.finish_task(task->id, Error{Code::unsupported, "No host fits."}).ok());
  expect_error(operations_.cancel_task(task->id.text), Code::conflict,
               "Task " + task->id.text + " has ended already: `holdfast task show " + task->id.text + "` says how.");
}

TEST_F(OperationsTest, resize_grows_the_spec_only_once_the_image_has_grown) {
  auto spec = cluster_.spec("web", 512);
  spec.disks[0].size_bytes = std::uint64_t{10} << 30;
  const auto made = operations_.create_vm(spec, "", by_);
  ASSERT_TRUE(made.ok()) << made.error().what;
  finish(*made);
  expect_error(operations_.resize_vm("web", "root", std::uint64_t{9} << 30, by_), Code::invalid,
               "Disk root has 10240 MiB already: a disk can only grow.");
  EXPECT_EQ(operations_.resize_vm("web", "data", std::uint64_t{20} << 30, by_).code(), Code::not_found);
  const auto task = operations_.resize_vm("web", "root", std::uint64_t{20} << 30, by_);
  ASSERT_TRUE(task.ok()) << task.error().what;
  EXPECT_EQ(show_vm(store_, "web")->vm.spec.disks[0].size_bytes, std::uint64_t{10} << 30);
  EXPECT_EQ(operations_.start_vm("web", "", by_).code(), Code::conflict);
  finish(*task);
  EXPECT_EQ(show_vm(store_, "web")->vm.spec.disks[0].size_bytes, std::uint64_t{20} << 30);
}

TEST_F(OperationsTest, delete_needs_a_stopped_vm_and_frees_the_name) {
  cluster_.run_vm("web", "host1", 512);
  expect_error(operations_.delete_vm("web", by_), Code::invalid,
               "VM web is running on host1. Stop it first: holdfast vm stop web.");
  cluster_.stop_vm("web");
  const auto task = operations_.delete_vm("web", by_);
  ASSERT_TRUE(task.ok()) << task.error().what;
  finish(*task);
  EXPECT_EQ(show_vm(store_, "web").code(), Code::not_found);
  EXPECT_TRUE(store_.list(key::kOwners)->entries.empty());
  created("web");
}

TEST_F(OperationsTest, delete_cannot_end_while_somebody_owns_the_vm) {
  finish(created("web"));
  const auto task = operations_.delete_vm("web", by_);
  cluster_.set_owner("web", "host1", record::OwnerRecord::Phase::claimed);
  EXPECT_EQ(operations_.finish_task(task->id, {}).code(), Code::conflict);
  EXPECT_TRUE(show_vm(store_, "web").ok());
}

TEST_F(OperationsTest, a_failed_creation_leaves_no_vm) {
  const auto task = created("web");
  ASSERT_TRUE(operations_.finish_task(task.id, Error{Code::no_room, "The datastore is full."}).ok());
  EXPECT_EQ(show_vm(store_, "web").code(), Code::not_found);
  EXPECT_EQ(this->task(task.id).error_code, "no_room");
  EXPECT_EQ(this->task(task.id).message, "The datastore is full.");
  created("web");
}

TEST_F(OperationsTest, a_command_whose_active_task_has_vanished_is_accepted) {
  const auto task = created("web");
  store_.erase(key::kTasks + task.id.text);
  EXPECT_TRUE(operations_.start_vm("web", "", by_).ok());
}

TEST_F(OperationsTest, the_same_task_id_does_it_once) {
  const Actor by{"tester", TaskId("t-mine")};
  const auto first = operations_.create_vm(cluster_.spec("web", 512), "", by);
  const auto second = operations_.create_vm(cluster_.spec("web", 512), "", by);
  ASSERT_TRUE(second.ok()) << second.error().what;
  EXPECT_EQ(*first, *second);
  EXPECT_EQ(operations_.start_vm("web", "", by).code(), Code::conflict);
}

TEST_F(OperationsTest, a_lost_reply_is_resolved_by_reading_back) {
  store_.faults = {TestingStore::Fault::reply_lost};
  const auto task = operations_.create_vm(cluster_.spec("web", 512), "", by_);
  ASSERT_TRUE(task.ok()) << task.error().what;
  EXPECT_EQ(list_tasks(store_, 10)->size(), 1U);
}

TEST_F(OperationsTest, a_lost_request_is_sent_once_more) {
  store_.faults = {TestingStore::Fault::request_lost};
  ASSERT_TRUE(operations_.create_vm(cluster_.spec("web", 512), "", by_).ok());
  EXPECT_EQ(list_tasks(store_, 10)->size(), 1U);
  EXPECT_EQ(list_vms(store_)->size(), 1U);
}

TEST_F(OperationsTest, an_outcome_that_stays_unknown_is_said_so) {
  store_.faults = {TestingStore::Fault::request_lost, TestingStore::Fault::request_lost};
  const auto task = operations_.create_vm(cluster_.spec("web", 512), "", {"tester", TaskId("t-9")});
  expect_error(task, Code::outcome_unknown,
               "The store did not answer: the command may or may not have been accepted. Look at the VM "
               "before you repeat "
               "it. Its task would be t-9.");
}

TEST_F(OperationsTest, an_unreachable_store_is_unavailable) {
  store_.faults = {TestingStore::Fault::unavailable};
  EXPECT_EQ(operations_.create_vm(cluster_.spec("web", 512), "", by_).code(), Code::unavailable);
}

TEST_F(OperationsTest, edit_changes_a_stopped_vm) {
  finish(created("web"));
  auto spec = show_vm(store_, "web")->vm.spec;
  const std::string mac = spec.nics[0].mac;
  spec.memory_mib = 1024;
  spec.nics[0].mac = "";
  const auto changed = operations_.edit_vm("web", spec, 1);
  ASSERT_TRUE(changed.ok()) << changed.error().what;
  EXPECT_EQ(changed->generation, 2U);
  EXPECT_EQ(changed->spec.nics[0].mac, mac);
  EXPECT_EQ(show_vm(store_, "web")->vm.spec.memory_mib, 1024U);
  EXPECT_EQ(operations_.edit_vm("web", spec, 1).code(), Code::conflict);
}

TEST_F(OperationsTest, edit_of_a_running_vm_waits_for_its_next_start) {
  cluster_.run_vm("web", "host1", 512);
  auto spec = show_vm(store_, "web")->vm.spec;
  spec.description = "the shop";
  EXPECT_TRUE(operations_.edit_vm("web", spec, 0).ok());
}

TEST_F(OperationsTest, edit_cannot_change_disks) {
  finish(created("web"));
  auto spec = show_vm(store_, "web")->vm.spec;
  spec.disks[0].size_bytes *= 2;
  EXPECT_EQ(operations_.edit_vm("web", spec, 0).code(), Code::invalid);
}

TEST_F(OperationsTest, datastores_and_networks_have_unique_names) {
  record::DatastoreRecord wanted{{}, "gold", true, {{"*", "/srv/gold"}}};
  const auto first = operations_.add_datastore(wanted);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(operations_.add_datastore(wanted)->id, first->id);
  wanted.paths["*"] = "/srv/other";
  EXPECT_EQ(operations_.add_datastore(wanted).code(), Code::exists);
  EXPECT_EQ(operations_.add_datastore({{}, "x", true, {}}).code(), Code::invalid);
  EXPECT_EQ(operations_.add_datastore({{}, "x", true, {{"*", "relative"}}}).code(), Code::invalid);
  ASSERT_TRUE(operations_.add_network({"dmz", "br1", 7}).ok());
  EXPECT_TRUE(operations_.add_network({"dmz", "br1", 7}).ok());
  EXPECT_EQ(operations_.add_network({"dmz", "br1", 8}).code(), Code::exists);
  EXPECT_EQ(operations_.add_network({"x", "br1", 5000}).code(), Code::invalid);
  EXPECT_EQ(operations_.add_network({"x", "", 0}).code(), Code::invalid);
}

TEST_F(OperationsTest, events_are_listed_in_order) {
  for (int i = 0; i < 5; ++i) {
    record::EventRecord event;
    event.kind = "test";
    event.host = HostId("host1");
    event.text = std::to_string(i);
    emit(store_, event, 1000 + i);
  }
  const auto newest = list_events(store_, "", 2);
  ASSERT_EQ(newest->size(), 2U);
  EXPECT_EQ(newest->at(1).text, "4");
  EXPECT_EQ(list_events(store_, newest->at(0).id, 10)->size(), 1U);
}

TEST_F(OperationsTest, a_host_that_is_connected_cannot_be_removed) {
  const Status refused = operations_.remove_host("host2");
  EXPECT_EQ(refused.code(), Code::conflict);
  EXPECT_NE(refused.error().what.find("Host host2 is connected."), std::string::npos);
  EXPECT_EQ(operations_.remove_host("host9").code(), Code::not_found);
}

TEST_F(OperationsTest, a_host_that_owns_a_vm_cannot_be_removed) {
  cluster_.run_vm("web", "host2", 512);
  store_.erase(key::kSessions + "host2");
  const Status refused = operations_.remove_host("host2");
  EXPECT_EQ(refused.code(), Code::conflict);
  EXPECT_NE(refused.error().what.find("VM web is on host host2."), std::string::npos);
  EXPECT_TRUE(show_host(store_, "host2").ok());
}

TEST_F(OperationsTest, a_host_that_comes_back_while_it_is_removed_stays) {
  store_.erase(key::kSessions + "host2");
  store_.put(key::kIncarnations + "host2", record::encode(record::SessionRecord{SessionId("s-1")}));
  store_.before_commit = [this] {
    store_.put(key::kSessions + "host2", record::encode(record::SessionRecord{SessionId("s-2")}));
    store_.put(key::kIncarnations + "host2", record::encode(record::SessionRecord{SessionId("s-2")}));
  };
  EXPECT_EQ(operations_.remove_host("host2").code(), Code::conflict);
  EXPECT_TRUE(show_host(store_, "host2").ok());
}

TEST_F(OperationsTest, removing_a_host_leaves_nothing_of_it_and_can_be_repeated) {
  store_.erase(key::kSessions + "host2");
  store_.put(key::kIncarnations + "host2", record::encode(record::SessionRecord{SessionId("s-1")}));
  store_.faults = {TestingStore::Fault::reply_lost};
  ASSERT_TRUE(operations_.remove_host("host2").ok());
  EXPECT_EQ(show_host(store_, "host2").code(), Code::not_found);
  EXPECT_EQ(store_.get(key::kIncarnations + "host2").code(), Code::not_found);
  EXPECT_TRUE(operations_.remove_host("host2").ok());
}

TEST_F(OperationsTest, maintenance_is_noted_once_and_taken_back) {
  const auto entered = operations_.enter_maintenance("host1", by_);
  ASSERT_TRUE(entered.ok()) << entered.error().what;
  record::MaintenanceRecord expected;
  expected.host = HostId("host1");
  expected.requested_by = "tester";
  expected.since = 1700000000000;
  EXPECT_EQ(entered->maintenance, expected);
  const auto before = store_.list("")->version;
  EXPECT_TRUE(operations_.enter_maintenance("host1", {"other", {}}).ok());
  EXPECT_EQ(store_.list("")->version, before);
  const auto left = operations_.leave_maintenance("host1");
  ASSERT_TRUE(left.ok()) << left.error().what;
  EXPECT_FALSE(left->maintenance);
  EXPECT_TRUE(operations_.leave_maintenance("host1").ok());
}

TEST_F(OperationsTest, maintenance_is_refused_where_vms_have_nowhere_to_go) {
  expect_error(operations_.enter_maintenance("host9", by_), Code::not_found,
               "There is no host named host9: `holdfast host ls` lists them.");
  EXPECT_EQ(operations_.leave_maintenance("host9").code(), Code::not_found);
  ASSERT_TRUE(operations_.enter_maintenance("host1", by_).ok());
  expect_error(operations_.enter_maintenance("host2", by_), Code::conflict,
               "Every other host is in maintenance already. Take one out first: `holdfast host maintenance host1 "
               "--leave`.");
  ASSERT_TRUE(operations_.leave_maintenance("host1").ok());
  store_.erase(key::kSessions + "host1");
  expect_error(operations_.enter_maintenance("host2", by_), Code::conflict,
               "No other host is connected, so the VMs of host2 have nowhere to go. Bring another host back first.");
}

TEST_F(OperationsTest, host_in_maintenance_gets_no_start_and_no_move) {
  cluster_.run_vm("web", "host1", 512);
  finish(created("db", 3000));
  ASSERT_TRUE(operations_.enter_maintenance("host2", by_).ok());
  expect_error(operations_.start_vm("db", "host2", by_), Code::conflict,
               "Host host2 is in maintenance: it is given no VM until it leaves it.");
  const auto answer = operations_.check_migration("web", {HostId("host2"), {}});
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ(answer->reasons, std::vector<std::string>{"host2 is entering maintenance."});
  EXPECT_TRUE(operations_.start_vm("db", "", by_).ok());
}

TEST_F(OperationsTest, baseline_is_what_every_host_can_give) {
  expect_error(operations_.set_evc("SandyBridge"), Code::unsupported,
               "host2 lacks avx of the cluster's CPU baseline SandyBridge-v2.");
  EXPECT_EQ(operations_.set_evc("Z80").code(), Code::invalid);
  const auto set = operations_.set_evc("auto");
  ASSERT_TRUE(set.ok()) << set.error().what;
  EXPECT_EQ(set->told.model, "Westmere-v2");
  EXPECT_TRUE(set->told.automatic);
  EXPECT_EQ(set->told.forced_by, std::vector<std::string>{"host2 lacks avx of its successor SandyBridge-v2."});
  EXPECT_EQ(operations_.set_evc("Nehalem")->told.model, "Nehalem-v1");
  EXPECT_EQ(operations_.set_evc("off")->told.model, "");
}

TEST_F(OperationsTest, baseline_waits_until_every_host_knows_of_baselines) {
  make_a_host_old();
  expect_error(operations_.set_evc("auto"), Code::unsupported,
               "This needs a later version of Holdfast on host2. Upgrade every host first (doc/upgrade.md).");
}

TEST_F(OperationsTest, vms_that_see_another_cpu_than_their_next_start_gives_are_named) {
  cluster_.run_vm("web", "host1", 512);
  const auto id = show_vm(store_, "web")->vm.id;
  EXPECT_TRUE(show_evc(store_)->keep.empty());
  EXPECT_EQ(operations_.set_evc("auto")->keep, std::vector<std::string>{"web"}) << "an earlier version started it";
  auto owner = *show_vm(store_, "web")->owner;
  owner.cpu = cpu::option_for({}, "Westmere-v2", "tcg");
  store_.put(key::kOwners + id.text, record::encode(owner));
  EXPECT_TRUE(show_evc(store_)->keep.empty());
  EXPECT_EQ(operations_.set_evc("off")->keep, std::vector<std::string>{"web"});
}

TEST_F(OperationsTest, edit_of_hardware_is_noted_with_its_generation) {
  finish(created("web", 512));
  auto spec = show_vm(store_, "web")->vm.spec;
  spec.description = "changed";
  EXPECT_EQ(operations_.edit_vm("web", spec, 0)->hardware, 0u);
  spec.vcpus = 2;
  const auto edited = operations_.edit_vm("web", spec, 0);
  EXPECT_EQ(edited->hardware, edited->generation);
}

}  // namespace
}  // namespace hf::api
