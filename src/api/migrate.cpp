// Operations that move a running VM or a VM's disks, and the cancel of one: the task is made here, everything else is
// core/motion's.
#include <fmt/format.h>

#include <algorithm>

#include "api/operations_target.hpp"
#include "core/motion/relocation.hpp"

namespace hf::api {
namespace key = record::key;
using record::TaskKind;
using record::TaskRecord;
using record::TaskState;
using record::VmRecord;

namespace {
const std::string kNoTask = "t-1";  // stands for the task that is not made yet
const Error kCancelled = {Code::conflict, "It was cancelled."};

bool was_cancelled(const TaskRecord& task) {
  return task.state == TaskState::failed && task.message == kCancelled.what;
}

Error too_late(const TaskRecord& task, const HostId& host) {
  return {Code::conflict, fmt::format("Too late: VM {} runs on {} already.", task.vm_name, host.text)};
}

// What stands under these keys or prefixes, read one after the other: no snapshot.
Result<ha::View> read_view(Store& store, const std::vector<std::string>& prefixes) {
  std::vector<ha::KeyState> all;
  Version latest = 0;
  for (const auto& prefix : prefixes) {
    TRY_ASSIGN(const Snapshot snapshot, store.list(prefix));
    latest = std::max(latest, snapshot.version);
    for (const auto& entry : snapshot.entries) {
      auto record = record::decode_at(entry.key, entry.value);
      if (!record.ok()) return because("A record of the store is damaged", record.error());
      all.push_back({entry.key, entry.version, std::move(*record)});
    }
  }
  ha::View view;
  view.reset(all, latest);
  return view;
}

// A host is as alive as its session says: what `host ls` calls connected.
std::map<HostId, ha::Assessment> health_of(const ha::View& view) {
  std::map<HostId, ha::Assessment> health;
  for (const auto& [host, record] : view.hosts) {
    const bool connected = view.sessions.count(host) != 0;
    health[host] = {connected ? ha::Health::alive : ha::Health::unknown, ""};
  }
  return health;
}

Status check_limits(const record::MotionLimits& limits) {
  if (limits.bandwidth_mbit > kBandwidthMbitMax) {
    return Error{Code::invalid, fmt::format("The bandwidth of a vMotion is 1 to {} Mbit/s, or 0: no limit.",
                                            kBandwidthMbitMax)};
  }
  if (limits.max_stop_ms < 0 || limits.max_stop_ms > kMaxStopMsMax) {
    return Error{Code::invalid, fmt::format("The longest stop of a vMotion is 1 to {} ms, or 0: the default.",
                                            kMaxStopMsMax)};
  }
  return {};
}

template <class Map, class Key>
Version version_of(const Map& map, const Key& key) {
  const auto found = map.find(key);
  return found == map.end() ? 0 : found->second.version;
}

}  // namespace

Txn in_store_form(const ha::TypedTxn& typed, WallMs now) {
  Txn txn;
  for (const auto& condition : typed.conditions) txn.conditions.push_back({condition.key, condition.version});
  for (auto write : typed.writes) {
    const bool erase = std::holds_alternative<std::monostate>(write.value);
    auto* task = std::get_if<TaskRecord>(&write.value);
    if (task != nullptr) task->finished = now;
    const Txn::Write made{write.key, erase ? "" : record::encode(write.value), {}, erase};
    txn.writes.insert(task != nullptr ? txn.writes.begin() : txn.writes.end(), made);
  }
  return txn;
}

namespace {
// Ends a task that no motion has begun for. The conditions are all that the leader's plan would change.
ha::TypedTxn end_of_queued(const TaskRecord& task, const ha::View& view) {
  ha::TypedTxn txn;
  txn.conditions = {{key::kMotions + task.vm.text, version_of(view.motions, task.vm)},
                    {key::kRelocations + task.vm.text, version_of(view.relocations, task.vm)},
                    {key::kOwners + task.vm.text, version_of(view.owners, task.vm)},
                    {key::kVms + task.vm.text, version_of(view.vms, task.vm)},
                    {key::kTasks + task.id.text, version_of(view.tasks, task.id)}};
  TaskRecord ended = task;
  ended.state = TaskState::failed;
  ended.error_code = info(kCancelled.code).name;
  ended.message = kCancelled.what;
  txn.writes.push_back({key::kTasks + task.id.text, ended, 0});
  const auto vm = view.vms.find(task.vm);
  if (vm == view.vms.end() || vm->second.record.active_task != task.id) return txn;
  VmRecord freed = vm->second.record;
  freed.active_task = {};
  txn.writes.push_back({key::kVms + task.vm.text, freed, 0});
  return txn;
}
}  // namespace

// What can be seen to be wrong before a task is made.
Status check_relocation_words(const Migration& wanted, const VmRecord& vm) {
  if (wanted.datastore.empty()) {
    if (wanted.disk_format.empty() && wanted.disk.empty()) return {};
    return Error{Code::invalid, "A disk or a format is moved or converted with a datastore: --datastore."};
  }
  const auto after = vm::relocated(vm.spec, {wanted.datastore, wanted.disk_format, wanted.disk, kNoTask});
  return after.ok() ? Status() : Status(after.error());
}

vm::Command command_of(const Migration& wanted) {
  return wanted.datastore.empty() || !wanted.to.empty() ? vm::Command::migrate : vm::Command::relocate;
}

// Moves of disks, and the choice of what copies memory.
constexpr int kSinceLevel = 2;
bool is_new(const Migration& wanted) {
  return !wanted.datastore.empty() || wanted.limits.engine != record::MotionLimits{}.engine;
}

Result<TaskRecord> Operations::migrate_vm(const std::string& name, const Migration& wanted, const Actor& by) {
  TRY(check_limits(wanted.limits));
  return run_task("VM " + name, TaskKind::vm_migrate, by, [&]() -> Result<Plan> {
    if (is_new(wanted)) {
      // safety: an earlier leader would read a move of disks as one of the VM.
      TRY_ASSIGN(const auto cluster, read<record::ClusterRecord>(store_, key::kCluster));
      TRY(require_level(cluster.record, kSinceLevel));
    }
    TRY_ASSIGN(const Target target, load(name));
    TRY(require_legal(command_of(wanted), target));
    TRY(check_relocation_words(wanted, target.vm.record));
    if (!wanted.to.empty()) {
      TRY_ASSIGN(const auto host, read_or_none<record::HostRecord>(store_, key::kHosts + wanted.to.text));
      if (host.version == 0) {
        return Error{Code::invalid,
                     "There is no host named " + wanted.to.text + ": `holdfast host ls` lists them."};
      }
      if (is_owned(target.owner.record) && target.owner.record.host == wanted.to) {
        return Error{Code::invalid, "VM " + target.name() + " is on " + wanted.to.text + " already."};
      }
    }
    TaskRecord task = new_task(TaskKind::vm_migrate, target.vm.record, by);
    task.to = wanted.to;
    task.limits = wanted.limits;
    task.datastore = wanted.datastore;
    task.disk_format = wanted.disk_format;
    task.disk = wanted.disk;
    return command(target, target.vm.record, task);
  });
}

Result<motion::Answer> Operations::check_migration(const std::string& name, const Migration& wanted) {
  TRY(check_limits(wanted.limits));
  TRY_ASSIGN(const Target target, load(name));
  TRY_ASSIGN(const ha::View view, read_view(store_, {key::kHosts, key::kSessions, key::kDatastores, key::kVms,
                                                     key::kOwners, key::kMotions, key::kStatus,
                                                     key::kMaintenance, key::kCluster, key::kRelocations}));
  if (is_new(wanted) && view.cluster) TRY(require_level(view.cluster->record, kSinceLevel));
  const auto health = health_of(view);
  const auto candidates = motion::use_of_hosts(view, health);
  motion::Answer answer;
  vm::Relocation disks;
  if (!wanted.datastore.empty()) disks = {wanted.datastore, wanted.disk_format, wanted.disk, kNoTask};
  answer = command_of(wanted) == vm::Command::relocate
               ? motion::check_relocation({view, health, target.vm.record.id, disks})
               : motion::check({view, health, candidates, target.vm.record.id, wanted.to, wanted.limits.engine, disks});
  // What the leader need not ask: the task that it plans is the command under way.
  const Status legal = require_legal(command_of(wanted), target);
  if (!legal.ok() && (target.busy() || answer.reasons.empty())) {
    answer.reasons.insert(answer.reasons.begin(), legal.error().what);
    answer.to = {};
  }
  return answer;
}

Result<Txn> Operations::plan_cancel(const std::string& id) {
  TRY_ASSIGN(const TaskRecord known, show_task(store_, id));
  if (known.kind != TaskKind::vm_migrate) {
    return Error{Code::unsupported,
                 fmt::format("Task {} is a {}, which cannot be cancelled: only a vm.migrate can.", id,
                             record::name_of(known.kind))};
  }
  // safety: the motion is read before the owner. A commit in between has changed the motion's version, so the swap
  // loses; an owner older than the motion would make a motion that has arrived look as if it could be taken back.
  TRY_ASSIGN(const ha::View view,
             read_view(store_, {key::kRelocations + known.vm.text, key::kMotions + known.vm.text,
                                key::kOwners + known.vm.text,
                                key::kVms + known.vm.text, key::kTasks + id}));
  const auto found = view.tasks.find(known.id);
  const TaskRecord& task = found == view.tasks.end() ? known : found->second.record;
  if (was_cancelled(task)) return Txn{};
  const auto* motion = view.motion(task.vm);
  const auto* owner = view.owner(task.vm);
  const bool brought = owner != nullptr && owner->record.motion == task.id;
  if (is_final(task)) {
    if (brought) return too_late(task, owner->record.host);
    return Error{Code::conflict,
                 "Task " + id + " has ended already: `holdfast task show " + id + "` says how."};
  }
  if (const auto* relocation = view.relocation(task.vm); relocation != nullptr && relocation->record.id == task.id) {
    const auto txn = motion::abandoning(task.vm, task.id, kCancelled, view);
    if (txn) return in_store_form(*txn, world_.now());
  }
  if (motion != nullptr && motion->record.id == task.id) {
    const auto txn = motion::ending(task.vm, task.id, kCancelled, view);
    if (!txn) return too_late(task, motion->record.to);
    return in_store_form(*txn, world_.now());
  }
  // It has arrived, and its record is erased already: its new host ends the task.
  if (brought) return too_late(task, owner->record.host);
  return in_store_form(end_of_queued(task, view), world_.now());
}

Result<TaskRecord> Operations::cancel_task(const std::string& id) {
  TRY(run_write("Task " + id, [&] { return plan_cancel(id); }));
  return show_task(store_, id);
}

}  // namespace hf::api
