// Goal: a VM that cannot move is refused with every reason at once; one that can goes where there is room, within the
// limits; and what cannot go on is ended. Method: views made by hand.
#include "core/motion/planner.hpp"

#include <gtest/gtest.h>

#include "core/ha/leader.hpp"

namespace hf::motion {
namespace {

using ha::Health;
using record::Engine;
using record::MotionRecord;
using record::OwnerRecord;

class Planning : public ::testing::Test {
 protected:
  Planning() {
    for (const char* name : {"a", "b", "c"}) {
      record::HostRecord host;
      host.host = HostId(name);
      host.memory_mib = 1000;
      host.accelerator = "tcg";
      host.qemu_version = "10.0.2";
      host.datastores = {{"ds-1", "/mnt/1"}};
      host.networks = {"vm"};
      put("hosts/" + host.host.text, host);
      health_[host.host] = {Health::alive, ""};
    }
    put("datastores/ds-1", datastore("ds-1", true));
    put("leader", record::LeaderRecord{HostId("a"), SessionId("s")});
  }
  void put(const std::string& key, record::Any value) {
    ++version_;
    view_.apply({{key, version_, std::move(value)}}, version_);
  }
  static record::DatastoreRecord datastore(const std::string& id, bool shared) {
    record::DatastoreRecord record;
    record.id = DatastoreId(id);
    record.name = id;
    record.shared = shared;
    return record;
  }
  // Runs on host a, wants to move by task t-<id>.
  void add_vm(const std::string& id, std::uint64_t memory_mib, const std::string& to = "") {
    record::VmRecord vm;
    vm.id = VmId(id);
    vm.spec.name = id;
    vm.spec.memory_mib = memory_mib;
    vm.spec.datastore = "ds-1";
    vm.desired = record::Desired::running;
    vm.active_task = TaskId("t-" + id);
    put("vms/" + id, vm);
    OwnerRecord owner;
    owner.phase = OwnerRecord::Phase::claimed;
    owner.host = HostId("a");
    owner.epoch = Epoch{1};
    put("owners/" + id, owner);
    record::VmStatus status;
    status.state = record::VmState::running;
    status.epoch = Epoch{1};
    put("status/" + id, status);
    record::TaskRecord task;
    task.id = vm.active_task;
    task.kind = record::TaskKind::vm_migrate;
    task.vm = vm.id;
    task.to = HostId(to);
    put("tasks/" + task.id.text, task);
  }
  void add_motion(const std::string& id, const std::string& to, MotionRecord::Phase phase) {
    MotionRecord motion;
    motion.id = TaskId("t-" + id);
    motion.vm = VmId(id);
    motion.from = HostId("a");
    motion.to = HostId(to);
    motion.epoch = Epoch{1};
    motion.phase = phase;
    put("motions/" + id, motion);
  }
  Answer ask(const std::string& vm, const std::string& to, Engine engine = Engine::automatic,
             const vm::Relocation& disks = {}) {
    const auto candidates = use_of_hosts(view_, health_);
    return check({view_, health_, candidates, VmId(vm), HostId(to), engine, disks});
  }
  // Its one disk is on a datastore that only host a has; `there` is b's alone.
  void add_local_vm(const std::string& id) {
    add_vm(id, 100, "b");
    auto vm = view_.vms.at(VmId(id)).record;
    vm.spec.datastore = "here";
    vm.spec.disks.push_back({"root", "", 1 << 20, vm::DiskFormat::raw, ""});
    put("vms/" + id, vm);
    for (const auto& [host, name] : {std::pair{"a", "here"}, std::pair{"b", "there"}}) {
      put(std::string("datastores/") + name, datastore(name, false));
      auto record = view_.hosts.at(HostId(host)).record;
      record.datastores[name] = {};
      put(std::string("hosts/") + host, record);
    }
    auto task = view_.tasks.at(TaskId("t-" + id)).record;
    task.datastore = "there";
    put("tasks/t-" + id, task);
  }
  void set_tracker(const std::string& vm, const std::string& text) {
    auto status = view_.status_of(VmId(vm))->record;
    status.memory_tracker = text;
    put("status/" + vm, status);
  }
  void set_qemu(const std::string& host, const std::string& version, const std::string& accelerator) {
    auto record = view_.hosts.at(HostId(host)).record;
    record.qemu_version = version;
    record.accelerator = accelerator;
    put("hosts/" + host, record);
  }
  std::vector<ha::action::Commit> tick() {
    Actions out;
    planner_.tick({view_, session_, health_, now_}, out);
    std::vector<ha::action::Commit> commits;
    for (const auto& action : out) commits.push_back(std::get<ha::action::Commit>(action));
    return commits;
  }
  static const MotionRecord* planned(const ha::action::Commit& commit) {
    return std::get_if<MotionRecord>(&commit.txn.writes.front().value);
  }

  ha::View view_;
  ha::Version version_ = 0;
  std::map<HostId, ha::Assessment> health_;
  Instant now_ = Instant{} + 1000s;
  OpId next_op_ = 1;
  ha::Session session_{HostId("a"), {}, [this] { return next_op_++; }, [] { return SessionId("s"); }};
  Planner planner_{10s, [this] { return next_op_++; }};
};

TEST_F(Planning, every_reason_is_told_at_once) {
  add_vm("web", 600);
  auto vm = view_.vms.at(VmId("web")).record;
  vm.spec.disks.push_back({"data", "scratch", 0, vm::DiskFormat::raw, ""});
  vm.spec.nics.push_back({"dmz", vm::NicModel::virtio, ""});
  put("vms/web", vm);
  put("datastores/scratch", datastore("scratch", false));
  auto b = view_.hosts.at(HostId("b")).record;
  b.memory_mib = 500;
  b.accelerator = "kvm";
  b.qemu_version = "7.2.22";
  put("hosts/b", b);
  EXPECT_EQ(ask("web", "b").reasons,
            (std::vector<std::string>{"VM web has data on scratch, which is local to its host. Name a "
                                      "datastore that the other host has: --datastore.",
                                      "b has 500 of 500 MiB free.", "b does not see datastore scratch.",
                                      "b does not have network dmz.", "b runs guests by kvm, not by tcg as a does.",
                                      "b has QEMU 7.2.22, older than the 10.0.2 of a."}));
}

TEST_F(Planning, disks_that_go_along_need_only_the_datastore_that_they_go_to) {
  add_local_vm("web");
  EXPECT_EQ(ask("web", "b").reasons.size(), 2U);
  EXPECT_EQ(ask("web", "b", Engine::automatic, {"there", "", "", "t-web"}).reasons, std::vector<std::string>{});
  const auto commits = tick();
  ASSERT_EQ(commits.size(), 1U);
  EXPECT_EQ(planned(commits[0])->disks, (vm::Relocation{"there", "", "", "t-web"}));
}

TEST_F(Planning, disks_that_cannot_go_along_are_told_with_every_reason) {
  add_local_vm("web");
  auto vm = view_.vms.at(VmId("web")).record;
  vm.spec.disks[0].size_bytes = 0;
  put("vms/web", vm);
  EXPECT_EQ(ask("web", "b", Engine::qemu, {"there", "", "", "t-web"}).reasons,
            (std::vector<std::string>{
                "The spec of VM web does not say how large disk root is, which was imported by an earlier version: "
                "`holdfast vm resize` writes it, while the VM is off.",
                "QEMU's own migration does not take the disks of VM web along: move the disks first (--datastore "
                "without --to), then the VM."}));
  const auto nowhere = ask("web", "b", Engine::automatic, {"nowhere", "", "", "t-web"}).reasons;
  EXPECT_NE(std::find(nowhere.begin(), nowhere.end(),
                      "There is no datastore named nowhere: `holdfast datastore ls` lists them."),
            nowhere.end());
}

TEST_F(Planning, motion_with_disks_counts_as_four_and_the_next_one_waits) {
  add_local_vm("web");
  add_local_vm("db");
  EXPECT_EQ(tick().size(), 1U);
  EXPECT_EQ(tick().size(), 0U);
}

TEST_F(Planning, motion_with_disks_waits_until_what_the_last_one_left_is_deleted) {
  add_local_vm("web");
  record::RelocationRecord left;
  left.id = TaskId("t-earlier");
  left.vm = VmId("web");
  left.phase = record::RelocationRecord::Phase::committed;
  left.cleaner = HostId("b");
  put("relocations/web", left);
  EXPECT_EQ(tick().size(), 0U);
  put("relocations/web", {});
  EXPECT_EQ(tick().size(), 1U);
}

TEST_F(Planning, guest_whose_memory_nobody_can_read_is_moved_by_qemu_itself_and_any_other_only_if_asked) {
  add_vm("web", 100);
  EXPECT_EQ(ask("web", "b").engine, Engine::holdfast);
  EXPECT_EQ(ask("web", "b", Engine::qemu).engine, Engine::qemu);
  set_tracker("web", "comparison: the kernel is too old.");
  EXPECT_EQ(ask("web", "b").engine, Engine::holdfast);
  set_tracker("web", "none: QEMU runs without Holdfast's shim.");
  EXPECT_EQ(ask("web", "b").engine, Engine::qemu);
  EXPECT_EQ(ask("web", "b").to, HostId("b"));
  EXPECT_EQ(ask("web", "b", Engine::holdfast).reasons,
            std::vector<std::string>{"Holdfast's engine cannot read the memory of VM web (none: QEMU runs without "
                                     "Holdfast's shim.); QEMU's own migration may move it."});
  const auto commits = tick();
  ASSERT_EQ(commits.size(), 1U);
  EXPECT_EQ(planned(commits[0])->limits.engine, Engine::qemu);
}

TEST_F(Planning, qemus_own_migration_is_refused_where_it_loses_what_an_emulated_guest_writes) {
  add_vm("web", 100);
  set_qemu("a", "7.2.22", "tcg");
  EXPECT_EQ(ask("web", "b", Engine::qemu).reasons,
            std::vector<std::string>{"a has QEMU 7.2.22: QEMU's own migration loses what an emulated guest writes "
                                     "before version 9.0."});
  EXPECT_TRUE(ask("web", "b").reasons.empty());
  set_qemu("b", "8.2.0", "tcg");
  EXPECT_EQ(ask("web", "b", Engine::qemu).reasons.size(), 2U);
  for (const char* host : {"a", "b", "c"}) set_qemu(host, "7.2.22", "kvm");
  EXPECT_TRUE(ask("web", "b", Engine::qemu).reasons.empty());
  for (const char* host : {"a", "b", "c"}) set_qemu(host, "9.0.0", "tcg");
  EXPECT_TRUE(ask("web", "b", Engine::qemu).reasons.empty());
}

TEST_F(Planning, uefi_guest_is_moved_by_qemu_itself_and_by_nothing_else) {
  add_vm("web", 100);
  auto vm = view_.vms.at(VmId("web")).record;
  vm.spec.firmware = vm::Firmware::uefi;
  put("vms/web", vm);
  EXPECT_EQ(ask("web", "b", Engine::holdfast).reasons,
            std::vector<std::string>{"VM web boots by UEFI, and Holdfast's engine does not carry the memory of its "
                                     "firmware's variables (QEMU's system.flash1); QEMU's own migration does."});
  EXPECT_TRUE(ask("web", "b", Engine::qemu).reasons.empty());
  EXPECT_EQ(ask("web", "b").engine, Engine::qemu);
  const auto commits = tick();
  ASSERT_EQ(commits.size(), 1U);
  EXPECT_EQ(planned(commits[0])->limits.engine, Engine::qemu);
  set_qemu("a", "7.2.22", "tcg");
  EXPECT_EQ(ask("web", "b").reasons,
            std::vector<std::string>{"VM web boots by UEFI, so QEMU's own migration has to move it. a has QEMU 7.2.22: "
                                     "QEMU's own migration loses what an emulated guest writes before version 9.0."});
}

TEST_F(Planning, qemus_own_migration_waits_until_every_host_knows_of_it) {
  add_vm("web", 100);
  record::ClusterRecord cluster;
  cluster.level = 1;
  put("cluster", cluster);
  EXPECT_EQ(ask("web", "b", Engine::qemu).reasons,
            std::vector<std::string>{"Not every host's version of Holdfast can use QEMU's own migration. Upgrade every "
                                     "host first (doc/upgrade.md)."});
  EXPECT_TRUE(ask("web", "b").reasons.empty());
  set_tracker("web", "none: QEMU runs without Holdfast's shim.");
  EXPECT_EQ(ask("web", "b").reasons.size(), 1U);
  cluster.level = 2;
  put("cluster", cluster);
  EXPECT_TRUE(ask("web", "b").reasons.empty());
}

TEST_F(Planning, what_the_guest_is_speaks_against_a_move) {
  add_vm("web", 100);
  auto vm = view_.vms.at(VmId("web")).record;
  vm.generation = vm.hardware = 3;
  put("vms/web", vm);
  auto owner = view_.owner(VmId("web"))->record;
  owner.generation = 2;
  put("owners/web", owner);
  auto status = view_.status_of(VmId("web"))->record;
  status.state = record::VmState::paused;
  status.message = "Disk root: the datastore is full.";
  put("status/web", status);
  EXPECT_EQ(ask("web", "b").reasons,
            (std::vector<std::string>{
                "VM web is paused by a disk error and can move once that is mended: Disk root: the datastore is full.",
                "VM web was edited since it was started, and the other host would give it the new hardware. Stop and "
                "start it first."}));
}

TEST_F(Planning, cpu_of_the_guest_must_be_had_at_the_destination_and_the_host_must_meet_the_baseline) {
  add_vm("web", 100);
  record::ClusterRecord cluster;
  cluster.evc = "SandyBridge-v2";
  put("cluster", cluster);
  for (const char* name : {"a", "b", "c"}) {
    auto host = view_.hosts.at(HostId(name)).record;
    host.cpu.features = {"aes"};
    host.cpu.rungs = {{"SandyBridge-v2", {}}};
    if (host.host == HostId("b")) host.cpu.rungs["SandyBridge-v2"] = {"avx", "x2apic"};
    put("hosts/" + host.host.text, host);
  }
  auto owner = view_.owner(VmId("web"))->record;
  owner.cpu = "SandyBridge-v2,enforce=on";
  put("owners/web", owner);
  EXPECT_EQ(ask("web", "b").reasons,
            (std::vector<std::string>{"b lacks avx, x2apic of the cluster's CPU baseline SandyBridge-v2.",
                                      "b lacks avx, x2apic of the VM's CPU SandyBridge-v2."}));
  EXPECT_EQ(ask("web", "").to, HostId("c"));
  owner.cpu = "";  // an earlier version started it
  put("owners/web", owner);
  EXPECT_EQ(ask("web", "b").reasons.size(), 1u);
}

TEST_F(Planning, itself_the_unknown_and_the_lost_are_no_destinations) {
  add_vm("web", 100);
  health_[HostId("b")] = {Health::suspect, ""};
  EXPECT_EQ(ask("web", "a").reasons, std::vector<std::string>{"a is where the VM is now."});
  EXPECT_EQ(ask("web", "x").reasons, std::vector<std::string>{"x is not a host of this cluster."});
  EXPECT_EQ(ask("web", "b").reasons, std::vector<std::string>{"b has no contact to the cluster."});
  EXPECT_EQ(ask("web", "").to, HostId("c"));
}

TEST_F(Planning, vm_that_does_not_run_is_refused_and_its_task_says_why) {
  add_vm("web", 100, "b");
  record::VmStatus status;
  status.state = record::VmState::starting;
  put("status/web", status);
  const auto commits = tick();
  ASSERT_EQ(commits.size(), 1u);
  const auto& task = std::get<record::TaskRecord>(commits.front().txn.writes.back().value);
  EXPECT_EQ(task.state, record::TaskState::failed);
  EXPECT_EQ(task.error_code, "unsupported");
  EXPECT_NE(task.message.find("does not run now"), std::string::npos);
}

TEST_F(Planning, memory_of_a_vm_in_motion_counts_on_both_hosts) {
  add_vm("web", 600);
  add_motion("web", "b", MotionRecord::Phase::ready);
  add_vm("db", 600, "b");
  EXPECT_EQ(ask("db", "b").reasons, std::vector<std::string>{"b has 400 of 1000 MiB free."});
  EXPECT_EQ(ask("db", "").to, HostId("c"));
}

TEST_F(Planning, two_plans_of_one_tick_know_of_each_other) {
  add_vm("web", 600);
  add_vm("db", 600);
  const auto commits = tick();
  ASSERT_EQ(commits.size(), 2u);
  EXPECT_NE(planned(commits.at(0))->to, planned(commits.at(1))->to);
}

TEST_F(Planning, fifth_motion_of_a_slow_link_waits_and_the_oldest_is_first) {
  for (int n = 1; n <= 5; ++n) add_vm("vm-" + std::to_string(n), 10);
  EXPECT_EQ(tick().size(), 4u);
  EXPECT_TRUE(tick().empty());
  for (const char* name : {"a", "b", "c"}) {
    auto host = view_.hosts.at(HostId(name)).record;
    host.motion_mbit = 10000;
    put(std::string("hosts/") + name, host);
  }
  ASSERT_EQ(tick().size(), 1u);
}

TEST_F(Planning, limit_is_the_smaller_of_the_host_and_its_link) {
  record::HostRecord host;
  EXPECT_EQ(limit_of(host, {}), 4);
  host.motion_mbit = 25000;
  EXPECT_EQ(limit_of(host, {}), 8);
  Limits limits;
  limits.host = 6;
  EXPECT_EQ(limit_of(host, limits), 6);
}

TEST_F(Planning, motion_of_a_vm_that_was_taken_over_is_erased) {
  add_vm("web", 100);
  add_motion("web", "b", MotionRecord::Phase::ready);
  EXPECT_TRUE(tick().empty());
  auto owner = view_.owner(VmId("web"))->record;
  owner.host = HostId("c");
  owner.epoch = owner.epoch.next();
  put("owners/web", owner);
  const auto commits = tick();
  ASSERT_EQ(commits.size(), 1u);
  EXPECT_TRUE(std::holds_alternative<std::monostate>(commits.front().txn.writes.front().value));
}

TEST_F(Planning, motion_whose_task_was_overridden_is_erased_and_the_new_task_is_left_alone) {
  add_vm("web", 100);
  add_motion("web", "b", MotionRecord::Phase::ready);
  auto vm = view_.vms.at(VmId("web")).record;
  vm.active_task = TaskId("t-kill");
  put("vms/web", vm);
  const auto commits = tick();
  ASSERT_EQ(commits.size(), 1u);
  EXPECT_EQ(commits.front().txn.writes.size(), 1u);
}

TEST_F(Planning, motion_ends_when_a_side_is_away_too_long_but_never_once_it_has_arrived) {
  add_vm("web", 100);
  add_motion("web", "b", MotionRecord::Phase::ready);
  health_[HostId("b")] = {Health::dead, ""};
  EXPECT_TRUE(tick().empty());
  now_ += 9s;
  EXPECT_TRUE(tick().empty());
  auto moved = committed_owner(view_.motion(VmId("web"))->record, view_.owner(VmId("web"))->record);
  const auto before = view_.owner(VmId("web"))->record;
  put("owners/web", moved);
  now_ += 60s;
  EXPECT_TRUE(tick().empty());
  put("owners/web", before);
  EXPECT_EQ(tick().size(), 1u);
}

TEST_F(Planning, host_in_maintenance_is_no_destination_and_the_plan_insists_that_the_chosen_one_is_not) {
  add_vm("web", 100);
  record::MaintenanceRecord maintenance;
  maintenance.host = HostId("b");
  put("maintenance/b", maintenance);
  EXPECT_EQ(ask("web", "b").reasons, std::vector<std::string>{"b is entering maintenance."});
  const auto commits = tick();
  ASSERT_EQ(commits.size(), 1u);
  EXPECT_EQ(planned(commits.front())->to, HostId("c"));
  const auto& conditions = commits.front().txn.conditions;
  EXPECT_NE(std::find(conditions.begin(), conditions.end(), ha::TypedTxn::Condition{"maintenance/c", 0}),
            conditions.end());
}

TEST_F(Planning, motion_to_a_host_that_enters_maintenance_is_ended) {
  add_vm("web", 100);
  add_motion("web", "b", MotionRecord::Phase::ready);
  record::MaintenanceRecord maintenance;
  maintenance.host = HostId("b");
  put("maintenance/b", maintenance);
  const auto commits = tick();
  ASSERT_EQ(commits.size(), 1u);
  EXPECT_TRUE(std::holds_alternative<std::monostate>(commits.front().txn.writes.front().value));
  const auto& task = std::get<record::TaskRecord>(commits.front().txn.writes.back().value);
  EXPECT_EQ(task.message, "Host b is entering maintenance.");
}

}  // namespace
}  // namespace hf::motion
