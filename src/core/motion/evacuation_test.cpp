// Goal: a host that shall be empty gets empty, or says why not; and nothing is left of it when that is called off.
// Method: views made by hand; what is committed is put into the view, or not.
#include "core/motion/evacuation.hpp"

#include <gtest/gtest.h>

namespace hf::motion {
namespace {

using ha::Health;
using record::MaintenanceRecord;
using record::OwnerRecord;
using record::TaskRecord;
using record::TaskState;
using Commits = std::vector<ha::action::Commit>;

class Evacuating : public ::testing::Test {
 protected:
  Evacuating() {
    for (const char* name : {"a", "b", "c"}) {
      record::HostRecord host;
      host.host = HostId(name);
      host.memory_mib = 1000;
      host.datastores = {{"ds-1", "/mnt/1"}};
      put("hosts/" + host.host.text, host);
      health_[host.host] = {Health::alive, ""};
    }
    for (const bool shared : {true, false}) {
      record::DatastoreRecord datastore;
      datastore.name = shared ? "ds-1" : "scratch";
      datastore.id = DatastoreId(datastore.name);
      datastore.shared = shared;
      put("datastores/" + datastore.name, datastore);
    }
    put("leader", record::LeaderRecord{HostId("a"), SessionId("s")});
  }
  void put(const std::string& key, record::Any value) {
    ++version_;
    view_.apply({{key, version_, std::move(value)}}, version_);
  }
  void add_vm(const std::string& id, std::uint64_t memory_mib, const std::string& host = "a") {
    record::VmRecord vm;
    vm.id = VmId(id);
    vm.spec.name = id;
    vm.spec.memory_mib = memory_mib;
    vm.spec.datastore = "ds-1";
    vm.desired = record::Desired::running;
    put("vms/" + id, vm);
    OwnerRecord owner;
    owner.phase = OwnerRecord::Phase::claimed;
    owner.host = HostId(host);
    owner.epoch = Epoch{1};
    put("owners/" + id, owner);
    record::VmStatus status;
    status.state = record::VmState::running;
    status.epoch = Epoch{1};
    put("status/" + id, status);
  }
  void enter(const std::string& host) {
    MaintenanceRecord maintenance;
    maintenance.host = HostId(host);
    maintenance.since = 77;
    put("maintenance/" + host, maintenance);
  }
  // One look; what it wants to commit is done.
  Commits look() {
    now_ += 1s;
    Actions out;
    evacuation_.tick({view_, session_, health_, now_}, planner_, out);
    Commits commits;
    for (const auto& action : out) commits.push_back(std::get<ha::action::Commit>(action));
    for (const auto& commit : commits) {
      for (const auto& write : commit.txn.writes) put(write.key, write.value);
      EXPECT_TRUE(evacuation_.on({commit.op, ha::Outcome::done, version_}));
    }
    return commits;
  }
  // The motion of a VM has failed.
  void fail_task(const std::string& vm, const std::string& why) {
    auto record = view_.vms.at(VmId(vm)).record;
    TaskRecord task = view_.tasks.at(record.active_task).record;
    task.state = TaskState::failed;
    task.message = why;
    put("tasks/" + task.id.text, task);
    record.active_task = TaskId();
    put("vms/" + vm, record);
  }
  const MaintenanceRecord& state_of(const std::string& host) { return view_.maintenance.at(HostId(host)).record; }
  const TaskRecord* task_of(const std::string& vm) {
    auto found = view_.tasks.find(view_.vms.at(VmId(vm)).record.active_task);
    return found == view_.tasks.end() ? nullptr : &found->second.record;
  }
  bool insists_on(const ha::action::Commit& commit, const std::string& key, ha::Version version) {
    const auto& all = commit.txn.conditions;
    return std::find(all.begin(), all.end(), ha::TypedTxn::Condition{key, version}) != all.end();
  }

  ha::View view_;
  ha::Version version_ = 0;
  std::map<HostId, ha::Assessment> health_;
  Instant now_ = Instant{} + 1000s;
  OpId next_op_ = 1;
  int next_task_ = 1;
  ha::Session session_{HostId("a"), {}, [this] { return next_op_++; }, [] { return SessionId("s"); }};
  Planner planner_{10s, [this] { return next_op_++; }};
  Evacuation evacuation_{[this] { return next_op_++; }, [this] { return TaskId("t-" + std::to_string(next_task_++)); }};
};

TEST_F(Evacuating, each_vm_gets_a_task_that_insists_on_what_was_seen) {
  add_vm("web", 100);
  add_vm("db", 100);
  add_vm("other", 100, "b");
  enter("a");
  const auto owner = view_.owner(VmId("db"))->version, vm = view_.vms.at(VmId("db")).version;
  const auto maintenance = view_.maintenance.at(HostId("a")).version;
  const auto commits = look();
  ASSERT_EQ(commits.size(), 2u);
  EXPECT_TRUE(insists_on(commits.front(), "owners/db", owner));
  EXPECT_TRUE(insists_on(commits.front(), "vms/db", vm));
  EXPECT_TRUE(insists_on(commits.front(), "maintenance/a", maintenance));
  EXPECT_TRUE(insists_on(commits.front(), "leader", view_.leader->version));
  ASSERT_NE(task_of("web"), nullptr);
  EXPECT_EQ(task_of("web")->kind, record::TaskKind::vm_migrate);
  EXPECT_EQ(task_of("web")->requested_by, "maintenance of a");
  EXPECT_EQ(task_of("web")->created, 77);
  EXPECT_EQ(task_of("other"), nullptr);
  EXPECT_TRUE(look().empty());
}

TEST_F(Evacuating, empty_host_is_in_maintenance_but_not_while_a_motion_has_a_side_there) {
  enter("a");
  record::MotionRecord motion;
  motion.vm = VmId("web");
  motion.from = HostId("a");
  motion.to = HostId("b");
  put("motions/web", motion);
  EXPECT_TRUE(look().empty());
  put("motions/web", {});
  EXPECT_EQ(look().size(), 1u);
  EXPECT_EQ(state_of("a").state, MaintenanceRecord::State::in);
  EXPECT_TRUE(look().empty());
}

TEST_F(Evacuating, vm_that_fits_nowhere_gets_no_task_and_is_named_with_every_host) {
  add_vm("web", 950);
  add_vm("wide", 100, "b");
  add_vm("broad", 60, "c");
  enter("a");
  look();
  EXPECT_EQ(task_of("web"), nullptr);
  EXPECT_EQ(state_of("a").message,
            "It waits for web: b has 900 of 1000 MiB free. c has 940 of 1000 MiB free.");
  put("owners/broad", {});
  look();
  EXPECT_NE(task_of("web"), nullptr);
  look();
  EXPECT_EQ(state_of("a").message, "");
}

TEST_F(Evacuating, room_is_given_out_once) {
  add_vm("db", 600);
  add_vm("mail", 600);
  add_vm("web", 600);
  enter("a");
  look();
  EXPECT_NE(task_of("db"), nullptr);
  EXPECT_NE(task_of("mail"), nullptr);
  look();  // the record changes only once what insists on it is done
  EXPECT_EQ(task_of("web"), nullptr);
  EXPECT_EQ(state_of("a").message, "It waits for web: b has 400 of 1000 MiB free. c has 400 of 1000 MiB free.");
}

TEST_F(Evacuating, vm_with_a_local_disk_stays_and_is_named) {
  add_vm("web", 100);
  auto vm = view_.vms.at(VmId("web")).record;
  vm.spec.disks.push_back({"data", "scratch", 0, vm::DiskFormat::raw, ""});
  put("vms/web", vm);
  enter("a");
  look();
  EXPECT_NE(state_of("a").message.find("VM web has data on scratch, which is local to its host."), std::string::npos);
}

TEST_F(Evacuating, motion_that_failed_is_tried_again_after_30_s_and_its_reason_stands_meanwhile) {
  add_vm("web", 100);
  enter("a");
  look();
  fail_task("web", "The link broke.");
  look();
  EXPECT_EQ(task_of("web"), nullptr);
  EXPECT_EQ(state_of("a").message, "It waits for web: The link broke.");
  now_ += 28s;
  look();
  EXPECT_EQ(task_of("web"), nullptr);
  look();
  EXPECT_NE(task_of("web"), nullptr);
  look();
  EXPECT_EQ(state_of("a").message, "");
}

TEST_F(Evacuating, task_whose_host_has_left_maintenance_is_not_planned_any_more) {
  add_vm("web", 100);
  enter("a");
  look();
  put("maintenance/a", {});
  Actions out;
  planner_.tick({view_, session_, health_, now_}, out);
  EXPECT_TRUE(out.empty());
}

TEST_F(Evacuating, other_command_to_a_vm_is_not_disturbed) {
  add_vm("web", 100);
  auto vm = view_.vms.at(VmId("web")).record;
  vm.active_task = TaskId("t-stop");
  put("vms/web", vm);
  enter("a");
  look();
  EXPECT_EQ(view_.vms.at(VmId("web")).record.active_task, TaskId("t-stop"));
  EXPECT_EQ(state_of("a").message, "It waits for web: another command to it is under way.");
}

TEST_F(Evacuating, called_off_ends_what_waits_and_leaves_what_is_under_way) {
  add_vm("web", 100);
  add_vm("db", 100);
  enter("a");
  look();
  const TaskId waits = task_of("web")->id, goes = task_of("db")->id;
  record::MotionRecord motion;
  motion.id = goes;
  motion.vm = VmId("db");
  motion.from = HostId("a");
  motion.to = HostId("b");
  motion.epoch = Epoch{1};
  put("motions/db", motion);
  put("maintenance/a", {});
  const auto commits = look();
  ASSERT_EQ(commits.size(), 1u);
  EXPECT_TRUE(insists_on(commits.front(), "motions/web", 0));
  EXPECT_EQ(view_.tasks.at(waits).record.state, TaskState::failed);
  EXPECT_EQ(view_.tasks.at(waits).record.error_code, "conflict");
  EXPECT_TRUE(view_.vms.at(VmId("web")).record.active_task.empty());
  EXPECT_EQ(task_of("db")->state, TaskState::queued);
}

TEST_F(Evacuating, task_of_a_vm_that_was_restarted_elsewhere_is_ended) {
  add_vm("web", 100);
  enter("a");
  look();
  auto owner = view_.owner(VmId("web"))->record;
  owner.host = HostId("b");
  owner.epoch = owner.epoch.next();
  put("owners/web", owner);
  look();
  EXPECT_EQ(task_of("web"), nullptr);
  EXPECT_EQ(state_of("a").state, MaintenanceRecord::State::in);
}

TEST_F(Evacuating, swap_of_unknown_outcome_is_waited_for) {
  add_vm("web", 100);
  enter("a");
  const auto tick = [&] {
    now_ += 1s;
    Actions out;
    evacuation_.tick({view_, session_, health_, now_}, planner_, out);
    for (const auto& action : out) evacuation_.on({std::get<ha::action::Commit>(action).op, ha::Outcome::unknown, 0});
    return out.size();
  };
  EXPECT_EQ(tick(), 1u);
  EXPECT_EQ(tick(), 0u);
  now_ += 5s;
  EXPECT_EQ(tick(), 1u);
}

}  // namespace
}  // namespace hf::motion
