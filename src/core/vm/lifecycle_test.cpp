// Goal: every cell of the table, state x wanted x command, gives what is written here, and every refusal is a
// sentence that names the VM.
#include "core/vm/lifecycle.hpp"

#include <gtest/gtest.h>

#include <map>

namespace hf::vm {
namespace {
using record::Desired;
using record::OwnerRecord;
using record::TaskKind;
using record::TaskRecord;
using record::VmRecord;
using record::VmState;
using record::VmStatus;

VmRecord web(Desired desired) {
  VmRecord vm;
  vm.id = VmId("vm-1");
  vm.spec.name = "web";
  vm.desired = desired;
  return vm;
}
VmStatus in(VmState state) {
  VmStatus status;
  status.state = state;
  status.host = HostId("host2");
  return status;
}
OwnerRecord owned(OwnerRecord::Phase phase) {
  OwnerRecord owner;
  owner.phase = phase;
  owner.host = HostId("host2");
  return owner;
}

constexpr Command kAll[] = {Command::start, Command::stop,   Command::kill,
                            Command::reset, Command::remove, Command::edit, Command::migrate, Command::relocate};
constexpr std::string_view kLetters = "skKrdeml";  // start, stop, Kill, reset, delete, edit, migrate, relocate

// The commands that are legal, by their letters.
std::string legal(VmState state, Desired desired) {
  std::string letters;
  const VmRecord vm = web(desired);
  const VmStatus status = in(state);
  for (std::size_t i = 0; i < kCommands; ++i) {
    auto checked = check(kAll[i], vm, &status, nullptr);
    if (checked.ok()) {
      letters += kLetters[i];
      continue;
    }
    EXPECT_TRUE(checked.code() == Code::conflict || checked.code() == Code::invalid);
    const std::string& text = checked.error().what;
    EXPECT_TRUE(text.starts_with("VM web ") && text.ends_with(".")) << text;
    EXPECT_EQ(text.find('{'), std::string::npos) << text;
  }
  return letters;
}

TEST(LifeCycle, every_cell_is_as_written) {
  const std::map<VmState, std::pair<std::string, std::string>> expected = {
      // wanted stopped, wanted running
      {VmState::stopped, {"sdel", "kKe"}},  {VmState::starting, {"Ke", "kKe"}},
      {VmState::running, {"kKe", "kKreml"}}, {VmState::paused, {"kKe", "kKrel"}},
      {VmState::frozen, {"Ke", "Ke"}},     {VmState::stopping, {"Ke", "kKe"}},
      {VmState::crashed, {"sdel", "kKe"}},  {VmState::failed, {"sdel", "skKe"}},
  };
  ASSERT_EQ(expected.size(), kVmStates);
  for (const auto& [state, letters] : expected) {
    EXPECT_EQ(legal(state, Desired::stopped), letters.first) << record::name_of(state);
    EXPECT_EQ(legal(state, Desired::running), letters.second) << record::name_of(state);
  }
}

TEST(LifeCycle, vm_that_never_ran_can_be_started_deleted_and_edited) {
  for (Command command : {Command::start, Command::remove, Command::edit}) {
    EXPECT_TRUE(check(command, web(Desired::stopped), nullptr, nullptr).ok());
  }
  EXPECT_EQ(check(Command::stop, web(Desired::stopped), nullptr, nullptr).error().what,
            "VM web is not running. Start it: holdfast vm start web.");
}

TEST(LifeCycle, running_vm_is_not_deleted_and_not_started_again) {
  const VmRecord vm = web(Desired::running);
  const VmStatus status = in(VmState::running);
  auto removed = check(Command::remove, vm, &status, nullptr);
  EXPECT_EQ(removed.code(), Code::invalid);
  EXPECT_EQ(removed.error().what, "VM web is running on host2. Stop it first: holdfast vm stop web.");
  auto started = check(Command::start, vm, &status, nullptr);
  EXPECT_EQ(started.code(), Code::invalid);
  EXPECT_EQ(started.error().what, "VM web is running on host2 already.");
}

TEST(LifeCycle, owner_counts_for_more_than_the_status) {
  for (auto phase : {OwnerRecord::Phase::assigned, OwnerRecord::Phase::claimed}) {
    const OwnerRecord owner = owned(phase);
    for (VmState state : {VmState::stopped, VmState::crashed, VmState::failed}) {
      const VmStatus status = in(state);
      EXPECT_EQ(check(Command::remove, web(Desired::stopped), &status, &owner).code(), Code::conflict);
      EXPECT_EQ(check(Command::start, web(Desired::stopped), &status, &owner).code(), Code::conflict);
      EXPECT_TRUE(check(Command::stop, web(Desired::stopped), &status, &owner).ok());
      EXPECT_TRUE(check(Command::kill, web(Desired::stopped), &status, &owner).ok());
    }
    EXPECT_EQ(check(Command::remove, web(Desired::stopped), nullptr, &owner).code(), Code::conflict);
  }
  const OwnerRecord released = owned(OwnerRecord::Phase::released);
  EXPECT_TRUE(check(Command::remove, web(Desired::stopped), nullptr, &released).ok());
}

TEST(LifeCycle, one_command_at_a_time_but_kill_overrides_start_stop_reset_and_migrate) {
  VmRecord vm = web(Desired::stopped);
  vm.active_task = TaskId("task-7");
  const VmStatus status = in(VmState::stopping);
  TaskRecord task;
  task.id = TaskId("task-7");
  task.kind = TaskKind::vm_stop;
  for (Command command : kAll) {
    auto checked = check(command, vm, &status, nullptr, &task);
    if (command == Command::kill) {
      EXPECT_TRUE(checked.ok());
      continue;
    }
    EXPECT_EQ(checked.code(), Code::conflict);
    EXPECT_EQ(checked.error().what,
              "VM web is busy: vm.stop (task task-7) is under way. Try again when it has ended.");
  }
  EXPECT_EQ(check(Command::kill, vm, &status, nullptr).code(), Code::conflict);
  for (TaskKind kind : {TaskKind::vm_start, TaskKind::vm_reset, TaskKind::vm_migrate}) {
    task.kind = kind;
    EXPECT_TRUE(check(Command::kill, vm, &status, nullptr, &task).ok());
  }
  task.kind = TaskKind::vm_delete;
  EXPECT_EQ(check(Command::kill, vm, &status, nullptr, &task).code(), Code::conflict);
  task.kind = TaskKind::vm_migrate;
  EXPECT_EQ(check(Command::stop, vm, &status, nullptr, &task).error().what,
            "VM web is busy: vm.migrate (task task-7) is under way. Try again when it has ended, or cancel it: "
            "holdfast task cancel task-7.");
}

TEST(LifeCycle, edit_of_a_running_vm_waits_for_its_next_start) {
  const VmStatus running = in(VmState::running);
  EXPECT_NE(edit_waits_for_start(web(Desired::running), &running, nullptr), "");
  EXPECT_EQ(edit_waits_for_start(web(Desired::stopped), nullptr, nullptr), "");
}

TEST(LifeCycle, edit_leaves_what_stands_on_the_datastore) {
  VmSpec before;
  before.name = "web";
  before.datastore = "a";
  before.disks = {{"root", "", 1 << 30, DiskFormat::qcow2, ""}};
  VmSpec after = before;
  after.vcpus = 4;
  EXPECT_TRUE(check_edit(before, after).ok());
  after.name = "www";
  after.disks[0].size_bytes *= 2;
  after.datastore = "b";
  after.cloud_init = CloudInit{};
  const std::string why = check_edit(before, after).error().what;
  EXPECT_EQ(std::count(why.begin(), why.end(), '\n'), 3) << why;
}

}  // namespace
}  // namespace hf::vm
