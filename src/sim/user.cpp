#include "sim/user.hpp"

#include <array>

#include "core/ha/task_end.hpp"
#include "core/motion/motion.hpp"
#include "core/motion/relocation.hpp"
#include "sim/world.hpp"

namespace hf::sim {
namespace {
using record::Desired;
using record::TaskKind;
namespace key = record::key;
}  // namespace

void User::create(const std::string& id, std::uint64_t memory_mib, vm::RestartPriority priority) {
  record::VmRecord vm;
  vm.id = VmId(id);
  vm.spec.name = id;
  vm.spec.memory_mib = memory_mib;
  vm.spec.datastore = "ds0";
  vm.spec.disks.push_back({.name = "root", .datastore = "", .size_bytes = std::uint64_t{1} << 30U, .import_from = "",
                           .tag = ""});
  vm.spec.ha.priority = priority;
  vm.spec.stop_timeout_seconds = 5;
  ha::TypedTxn txn;
  txn.conditions.push_back({key::kVms + id, 0});
  txn.writes.push_back({key::kVms + id, vm, 0});
  if (w_.service.commit_now(txn)) vms_.push_back(vm.id);
}

void User::create_some(int count) {
  constexpr std::array<vm::RestartPriority, 4> kPriorities = {
      vm::RestartPriority::high, vm::RestartPriority::medium, vm::RestartPriority::low,
      vm::RestartPriority::disabled};
  for (int n = 1; n <= count; ++n) {
    const auto which = w_.rng.chance(10) ? 3 : w_.rng.below(3);
    create(fmt::format("vm-{}", n), static_cast<std::uint64_t>(w_.rng.between(128, 1024)),
           kPriorities.at(which));
    if (w_.rng.chance(90)) command(VmId(fmt::format("vm-{}", n)), TaskKind::vm_start);
  }
}

bool User::ask(record::VmRecord vm, ha::Version read, record::TaskRecord task) {
  task.id = TaskId(fmt::format("task-{}", ++tasks_));
  task.vm = vm.id;
  task.state = record::TaskState::running;
  vm.active_task = task.id;
  ha::TypedTxn txn;
  txn.conditions.push_back({key::kVms + vm.id.text, read});
  txn.writes.push_back({key::kVms + vm.id.text, vm, 0});
  txn.writes.push_back({key::kTasks + task.id.text, task, 0});
  return w_.service.commit_now(txn);
}

bool User::command(const VmId& id, TaskKind kind) {
  const auto* entry = w_.store.get(key::kVms + id.text);
  if (entry == nullptr) return false;
  auto vm = std::get<record::VmRecord>(entry->value);
  if (!vm.active_task.empty() && kind == TaskKind::vm_kill && kill_moving(vm, entry->version)) return true;
  if (!vm.active_task.empty()) {
    w_.trace([&] {
      return fmt::format("user: {} {}: refused, another command is under way", name_of(kind), id.text);
    });
    return false;
  }
  const bool running = vm.desired == Desired::running;
  if (running == (kind == TaskKind::vm_start)) return false;  // nothing to do, or nothing to do it to
  record::TaskRecord task;
  task.kind = kind;
  task.timeout_seconds = kind == TaskKind::vm_stop ? 5 : 0;
  if (kind == TaskKind::vm_start) vm.desired = Desired::running;
  if (kind == TaskKind::vm_stop || kind == TaskKind::vm_kill) vm.desired = Desired::stopped;
  return ask(std::move(vm), entry->version, std::move(task));
}

// As the API does it: the kill takes the place of the motion, whose record goes in the same swap.
bool User::kill_moving(record::VmRecord vm, ha::Version read) {
  const auto* active = w_.store.get(key::kTasks + vm.active_task.text);
  const auto* moving = active == nullptr ? nullptr : std::get_if<record::TaskRecord>(&active->value);
  if (moving == nullptr || moving->kind != TaskKind::vm_migrate || vm.desired != Desired::running) return false;
  const auto* motion = w_.store.get(key::kMotions + vm.id.text);
  const bool pending = motion != nullptr && std::get<record::MotionRecord>(motion->value).phase !=
                                                record::MotionRecord::Phase::committed;
  vm.desired = Desired::stopped;
  record::TaskRecord task;
  task.id = TaskId(fmt::format("task-{}", ++tasks_));
  task.kind = TaskKind::vm_kill;
  task.vm = vm.id;
  task.state = record::TaskState::running;
  vm.active_task = task.id;
  const Error why{Code::conflict, "It was overridden."};
  ha::TypedTxn txn;
  txn.conditions.push_back({key::kVms + vm.id.text, read});
  if (motion == nullptr) txn.conditions.push_back({key::kMotions + vm.id.text, 0});
  if (pending) motion::erase({std::get<record::MotionRecord>(motion->value), motion->version}, vm.spec, txn);
  ha::end_task(*moving, &why, txn);
  txn.writes.push_back({key::kVms + vm.id.text, vm, 0});
  txn.writes.push_back({key::kTasks + task.id.text, task, 0});
  return w_.service.commit_now(txn);
}

namespace {
void convert(const record::VmRecord& vm, record::TaskRecord& task) {
  task.datastore = "ds0";
  task.disk_format = vm.spec.disks.front().format == vm::DiskFormat::raw ? "qcow2" : "raw";
}
}  // namespace

bool User::migrate(const VmId& id, const HostId& to, bool with_disks) {
  const auto* entry = w_.store.get(key::kVms + id.text);
  if (entry == nullptr) return false;
  auto vm = std::get<record::VmRecord>(entry->value);
  if (!vm.active_task.empty() || vm.desired != Desired::running) return false;
  record::TaskRecord task;
  task.kind = TaskKind::vm_migrate;
  task.to = to;
  if (with_disks && !to.empty()) convert(vm, task);
  return ask(std::move(vm), entry->version, std::move(task));
}

// Into the other format, where it is.
bool User::relocate(const VmId& id) {
  const auto* entry = w_.store.get(key::kVms + id.text);
  if (entry == nullptr || w_.store.get(key::kRelocations + id.text) != nullptr) return false;
  auto vm = std::get<record::VmRecord>(entry->value);
  if (!vm.active_task.empty()) return false;
  record::TaskRecord task;
  task.kind = TaskKind::vm_migrate;
  convert(vm, task);
  return ask(std::move(vm), entry->version, std::move(task));
}

bool User::cancel(const VmId& id) {
  ha::View view;
  view.reset(w_.store.all(), w_.store.version());
  if (const auto* relocation = view.relocation(id)) {
    const auto end = motion::abandoning(id, relocation->record.id, Error{Code::conflict, "It was cancelled."}, view);
    return end && w_.service.commit_now(*end);
  }
  const auto* motion = view.motion(id);
  if (motion == nullptr) return false;
  const auto txn = motion::ending(id, motion->record.id, Error{Code::conflict, "It was cancelled."}, view);
  return txn && w_.service.commit_now(*txn);
}

void User::next_migration(const VmId& vm) {
  if (w_.rng.chance(15)) {
    cancel(vm);
    return;
  }
  const auto host = static_cast<int>(w_.rng.below(static_cast<std::uint64_t>(w_.params.hosts)));
  const bool with_disks = w_.params.relocations > 0 && w_.rng.chance(40);
  migrate(vm, !with_disks && w_.rng.chance(50) ? HostId() : w_.host(host).id(), with_disks);
}

bool User::enter_maintenance(const HostId& host) {
  int open = 0;  // besides it
  for (int each = 0; each < w_.params.hosts; ++each) {
    const HostId& other = w_.host(each).id();
    if (other != host && w_.store.get(key::kMaintenance + other.text) == nullptr) ++open;
  }
  if (open == 0) return false;
  record::MaintenanceRecord maintenance;
  maintenance.host = host;
  ha::TypedTxn txn;
  txn.conditions.push_back({key::kMaintenance + host.text, 0});
  txn.writes.push_back({key::kMaintenance + host.text, maintenance, 0});
  return w_.service.commit_now(txn);
}

bool User::leave_maintenance(const HostId& host) {
  const auto* entry = w_.store.get(key::kMaintenance + host.text);
  if (entry == nullptr) return false;
  ha::TypedTxn txn;
  txn.conditions.push_back({key::kMaintenance + host.text, entry->version});
  txn.writes.push_back({key::kMaintenance + host.text, {}, 0});
  return w_.service.commit_now(txn);
}

void User::next_maintenance() {
  const HostId& host = w_.host(static_cast<int>(w_.rng.below(static_cast<std::uint64_t>(w_.params.hosts)))).id();
  if (w_.store.get(key::kMaintenance + host.text) == nullptr)
    enter_maintenance(host);
  else
    leave_maintenance(host);
}

void User::edit(const VmId& id, bool is_protected) {
  const auto* entry = w_.store.get(key::kVms + id.text);
  if (entry == nullptr) return;
  auto vm = std::get<record::VmRecord>(entry->value);
  vm.spec.ha.priority = is_protected ? vm::RestartPriority::medium : vm::RestartPriority::disabled;
  ++vm.generation;
  vm.spec.cpu_model = vm.generation % 2 == 1 ? "Nehalem-v1" : "";  // for its next start
  ha::TypedTxn txn;
  txn.conditions.push_back({key::kVms + id.text, entry->version});
  txn.writes.push_back({key::kVms + id.text, vm, 0});
  w_.service.commit_now(txn);
}

void User::begin() {
  if (w_.params.command_every > Duration{0} && !vms_.empty()) next();
}

void User::next() {
  w_.queue.after(w_.between(0ms, 2 * w_.params.command_every), [this, generation = generation_] {
    if (generation != generation_) return;
    constexpr std::array<TaskKind, 6> kKinds = {TaskKind::vm_start, TaskKind::vm_start, TaskKind::vm_start,
                                                TaskKind::vm_stop,  TaskKind::vm_kill,  TaskKind::vm_reset};
    const VmId& vm = vms_.at(w_.rng.below(vms_.size()));
    if (w_.params.maintenance > 0 && w_.rng.chance(w_.params.maintenance))
      next_maintenance();
    else if (w_.params.relocations > 0 && w_.rng.chance(w_.params.relocations))
      w_.rng.chance(15) ? cancel(vm) : relocate(vm);
    else if (w_.rng.chance(w_.params.migrations))
      next_migration(vm);
    else if (w_.rng.chance(10))
      edit(vm, w_.rng.chance(50));
    else
      command(vm, kKinds.at(w_.rng.below(kKinds.size())));
    next();
  });
}

}  // namespace hf::sim
