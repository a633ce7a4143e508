#include "api/operations_target.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "api/event_stamp.hpp"
#include "base/log.hpp"
#include "core/motion/motion.hpp"
#include "sys/pki/random.hpp"
#include "sys/process/clock.hpp"

namespace hf::api {
namespace key = record::key;
using record::Desired;
using record::TaskKind;
using record::TaskRecord;
using record::TaskState;
using record::VmRecord;

namespace {
vm::Disk* disk_named(vm::VmSpec& spec, const std::string& name) {
  for (auto& disk : spec.disks) {
    if (disk.name == name) return &disk;
  }
  return nullptr;
}

constexpr int kAttemptsMax = 5;

Txn::Write put(const std::string& name, const std::string& value) { return {name, value, {}, false}; }
Txn::Write erase(const std::string& name) { return {name, "", {}, true}; }

Error changed_meanwhile(const std::string& subject) {
  return {Code::conflict, subject + " is being changed by somebody else at the same time; try again."};
}
}  // namespace

Operations::World Operations::real_world(HostId here) {
  return {std::move(here), sys::wall_ms, [] { return pki::random_hex(8); }};
}

Result<Operations::Target> Operations::load(const std::string& name) {
  TRY_ASSIGN(const VmId id, find_vm(store_, name));
  Target target;
  TRY_ASSIGN(target.vm, read_or_none<VmRecord>(store_, key::kVms + id.text));
  if (target.vm.version == 0) return Error{Code::not_found, "VM " + name + " was deleted just now."};
  TRY_ASSIGN(target.owner, read_or_none<record::OwnerRecord>(store_, key::kOwners + id.text));
  TRY_ASSIGN(target.status, read_or_none<record::VmStatus>(store_, key::kStatus + id.text));
  TRY_ASSIGN(const auto relocation, read_or_none<record::RelocationRecord>(store_, key::kRelocations + id.text));
  target.relocating = relocation.version != 0;
  const TaskId& active = target.vm.record.active_task;
  if (!active.empty()) {
    TRY_ASSIGN(target.active, read_or_none<TaskRecord>(store_, key::kTasks + active.text));
  }
  return target;
}

Status Operations::require_legal(vm::Command command, const Target& target) {
  VmRecord vm = target.vm.record;
  if (!target.busy()) vm.active_task = {};  // a task that has ended or is gone does not keep the VM
  const auto* owner = target.owner.version != 0 ? &target.owner.record : nullptr;
  const auto* status = target.status.version != 0 ? &target.status.record : nullptr;
  TRY(vm::check(command, vm, status, owner, target.busy() ? &target.active.record : nullptr));
  const bool moves = command == vm::Command::remove || command == vm::Command::migrate ||
                     command == vm::Command::relocate;
  if (!moves || !target.relocating) return {};
  return Error{Code::conflict, "What the last move of VM " + target.name() +
                                   "'s disks has left is still being deleted. Try again in a moment."};
}

TaskRecord Operations::new_task(TaskKind kind, const VmRecord& vm, const Actor& by) const {
  TaskRecord task;
  task.id = by.task.empty() ? TaskId("t-" + world_.random_hex().substr(0, 12)) : by.task;
  task.kind = kind;
  task.vm = vm.id;
  task.vm_name = vm.spec.name;
  task.created = world_.now();
  task.requested_by = by.who;
  return task;
}

// The Txn of a command to an existing VM: the VM, its owner and its last task are still as they were read.
Operations::Plan Operations::command(const Target& target, VmRecord changed, TaskRecord task) const {
  Plan plan;
  changed.active_task = task.id;
  plan.txn.conditions = {{target.vm.key, target.vm.version},
                         {target.owner.key, target.owner.version},
                         {key::kTasks + task.id.text, 0}};
  plan.txn.writes = {put(target.vm.key, record::encode(changed)),
                     put(key::kTasks + task.id.text, record::encode(task))};
  plan.task = std::move(task);
  return plan;
}

Result<bool> Operations::settle(const Txn& txn, const std::function<Result<bool>()>& landed) {
  bool unknown = false;
  for (int sending = 0; sending < 2; ++sending) {
    const auto committed = store_.commit(txn);
    if (committed.ok() && committed->done) return true;
    if (committed.ok() && !unknown) return false;
    if (!committed.ok() && committed.code() != Code::outcome_unknown && !unknown) return committed.error();
    unknown = true;
    const auto seen = landed();
    if (!seen.ok()) break;
    if (*seen) return true;
    if (committed.ok()) return false;
  }
  return Error{Code::outcome_unknown,
               "The store did not answer: the command may or may not have been accepted. Look at the VM "
               "before you repeat it."};
}

Result<TaskRecord> Operations::run_task(const std::string& subject, TaskKind kind, const Actor& by,
                                        const std::function<Result<Plan>()>& attempt) {
  for (int i = 0; i < kAttemptsMax; ++i) {
    if (!by.task.empty()) {
      TRY_ASSIGN(const auto known, read_or_none<TaskRecord>(store_, key::kTasks + by.task.text));
      const bool same_vm = subject == "VM " + known.record.vm_name || subject == "VM " + known.record.vm.text;
      const bool same = same_vm && known.record.kind == kind && known.record.requested_by == by.who;
      if (known.version != 0 && same) return known.record;
      if (known.version != 0) {
        return Error{Code::conflict, "Another command has the Idempotency-Key " + by.task.text + " already."};
      }
    }
    TRY_ASSIGN(Plan plan, attempt());
    const std::string task_key = key::kTasks + plan.task.id.text;
    const auto landed = [&]() -> Result<bool> {
      TRY_ASSIGN(const auto task, read_or_none<TaskRecord>(store_, task_key));
      return task.version != 0;
    };
    auto done = settle(plan.txn, landed);
    if (!done.ok() && done.code() == Code::outcome_unknown) {
      return Error{Code::outcome_unknown,
                   done.error().what + " Its task would be " + plan.task.id.text + "."};
    }
    if (!done.ok()) return done.error();
    if (*done) return plan.task;
  }
  return changed_meanwhile(subject);
}

Status Operations::run_write(const std::string& subject, const std::function<Result<Txn>()>& attempt) {
  for (int i = 0; i < kAttemptsMax; ++i) {
    TRY_ASSIGN(const Txn txn, attempt());
    if (txn.writes.empty()) return {};
    const auto landed = [&]() -> Result<bool> {
      const auto entry = store_.get(txn.writes.front().key);
      if (entry.ok()) return entry->value == txn.writes.front().value;
      if (entry.code() == Code::not_found) return txn.writes.front().erase;
      return entry.error();
    };
    TRY_ASSIGN(const bool done, settle(txn, landed));
    if (done) return {};
  }
  return changed_meanwhile(subject);
}

Result<TaskRecord> Operations::start_vm(const std::string& name, const std::string& host, const Actor& by) {
  return run_task("VM " + name, TaskKind::vm_start, by, [&]() -> Result<Plan> {
    TRY_ASSIGN(const Target target, load(name));
    TRY(require_legal(vm::Command::start, target));
    TRY(check_start_room(target.vm.record, host));
    VmRecord changed = target.vm.record;
    changed.desired = Desired::running;
    changed.pinned_host = host;
    return command(target, changed, new_task(TaskKind::vm_start, changed, by));
  });
}

Result<TaskRecord> Operations::stop_vm(const std::string& name, int timeout_seconds, const Actor& by) {
  if (timeout_seconds < 0 || timeout_seconds > 86400) {
    return Error{Code::invalid, "The timeout of a stop is 0 to 86400 seconds."};
  }
  return run_task("VM " + name, TaskKind::vm_stop, by, [&]() -> Result<Plan> {
    TRY_ASSIGN(const Target target, load(name));
    TRY(require_legal(vm::Command::stop, target));
    VmRecord changed = target.vm.record;
    changed.desired = Desired::stopped;
    TaskRecord task = new_task(TaskKind::vm_stop, changed, by);
    task.timeout_seconds = timeout_seconds;
    return command(target, changed, task);
  });
}

// safety: nothing commits once the record is gone, and one that has committed has changed its version: the VM is killed
// on the host that has it. A committed one stays: it is the note that the new host's datastore record is to be written.
Status Operations::end_motion(const VmRecord& vm, Txn& txn) {
  TRY_ASSIGN(const auto motion, read_or_none<record::MotionRecord>(store_, key::kMotions + vm.id.text));
  if (motion.version != 0 && motion.record.phase == record::MotionRecord::Phase::committed) return {};
  if (motion.version == 0) {
    txn.conditions.push_back({motion.key, 0});
    return {};
  }
  ha::TypedTxn ended;
  motion::erase({motion.record, motion.version}, vm.spec, ended);
  const Txn more = in_store_form(ended, world_.now());
  txn.conditions.insert(txn.conditions.end(), more.conditions.begin(), more.conditions.end());
  txn.writes.insert(txn.writes.end(), more.writes.begin(), more.writes.end());
  return {};
}

Result<TaskRecord> Operations::kill_vm(const std::string& name, const Actor& by) {
  return run_task("VM " + name, TaskKind::vm_kill, by, [&]() -> Result<Plan> {
    TRY_ASSIGN(const Target target, load(name));
    TRY(require_legal(vm::Command::kill, target));
    const bool overrides = target.busy();
    VmRecord changed = target.vm.record;
    changed.desired = Desired::stopped;
    Plan plan = command(target, changed, new_task(TaskKind::vm_kill, changed, by));
    if (overrides) {
      TaskRecord old = target.active.record;
      old.state = TaskState::failed;
      old.error_code = info(Code::conflict).name;
      old.message = "It was overridden by task " + plan.task.id.text + " (vm.kill).";
      old.finished = world_.now();
      plan.txn.conditions.push_back({target.active.key, target.active.version});
      plan.txn.writes.push_back(put(target.active.key, record::encode(old)));
    }
    TRY(end_motion(changed, plan.txn));
    return plan;
  });
}

Result<TaskRecord> Operations::reset_vm(const std::string& name, const Actor& by) {
  return run_task("VM " + name, TaskKind::vm_reset, by, [&]() -> Result<Plan> {
    TRY_ASSIGN(const Target target, load(name));
    TRY(require_legal(vm::Command::reset, target));
    return command(target, target.vm.record, new_task(TaskKind::vm_reset, target.vm.record, by));
  });
}

Result<TaskRecord> Operations::resize_vm(const std::string& name, const std::string& disk, std::uint64_t size_bytes,
                                         const Actor& by) {
  return run_task("VM " + name, TaskKind::vm_resize, by, [&]() -> Result<Plan> {
    TRY_ASSIGN(const Target target, load(name));
    // safety: an image changes only while nobody has the right to run the VM; the task keeps it so.
    TRY(require_legal(vm::Command::remove, target));
    VmRecord changed = target.vm.record;
    vm::Disk* wanted = disk_named(changed.spec, disk);
    if (wanted == nullptr) return Error{Code::not_found, "VM " + name + " has no disk named " + disk + "."};
    if (size_bytes < wanted->size_bytes) {
      return Error{Code::invalid, fmt::format("Disk {} has {} MiB already: a disk can only grow.", disk,
                                              wanted->size_bytes >> 20U)};
    }
    wanted->size_bytes = size_bytes;
    TRY(vm::validate(changed.spec));
    TaskRecord task = new_task(TaskKind::vm_resize, target.vm.record, by);
    task.disk = disk;
    task.size_bytes = size_bytes;
    TRY_ASSIGN(task.host, host_with_datastores(target.vm.record.spec, ""));
    return command(target, target.vm.record, task);
  });
}

Result<TaskRecord> Operations::delete_vm(const std::string& name, const Actor& by) {
  return run_task("VM " + name, TaskKind::vm_delete, by, [&]() -> Result<Plan> {
    TRY_ASSIGN(const Target target, load(name));
    // safety: the images go only while nobody has the right to run the VM, and `desired` keeps the leader
    // from giving it.
    TRY(require_legal(vm::Command::remove, target));
    TaskRecord task = new_task(TaskKind::vm_delete, target.vm.record, by);
    TRY_ASSIGN(task.host, host_with_datastores(target.vm.record.spec, ""));
    return command(target, target.vm.record, task);
  });
}

Status Operations::begin_task(const TaskId& task) {
  return run_write("Task " + task.text, [&]() -> Result<Txn> {
    TRY_ASSIGN(auto found, read<TaskRecord>(store_, key::kTasks + task.text));
    if (is_final(found.record)) return Error{Code::conflict, "Task " + task.text + " has ended already."};
    if (found.record.state == TaskState::running) return Txn{};
    found.record.state = TaskState::running;
    return Txn{{{found.key, found.version}}, {put(found.key, record::encode(found.record))}};
  });
}

Status Operations::report_progress(const TaskId& task, int percent, const std::string& message) {
  return run_write("Task " + task.text, [&]() -> Result<Txn> {
    TRY_ASSIGN(auto found, read<TaskRecord>(store_, key::kTasks + task.text));
    if (is_final(found.record)) return Error{Code::conflict, "Task " + task.text + " has ended already."};
    found.record.state = TaskState::running;
    found.record.progress = std::clamp(percent, 0, 100);
    found.record.message = message;
    return Txn{{{found.key, found.version}}, {put(found.key, record::encode(found.record))}};
  });
}

Status Operations::finish_task(const TaskId& task, const Status& outcome,
                               const std::map<std::string, std::uint64_t>& sizes) {
  return run_write("Task " + task.text, [&]() -> Result<Txn> {
    TRY_ASSIGN(auto found, read<TaskRecord>(store_, key::kTasks + task.text));
    TaskRecord& ended = found.record;
    if (is_final(ended)) return Txn{};
    ended.state = outcome.ok() ? TaskState::succeeded : TaskState::failed;
    ended.progress = outcome.ok() ? 100 : ended.progress;
    ended.error_code = outcome.ok() ? "" : std::string(info(outcome.code()).name);
    ended.message = outcome.ok() ? "" : outcome.error().what;
    ended.finished = world_.now();
    Txn txn{{{found.key, found.version}}, {put(found.key, record::encode(ended))}};
    TRY_ASSIGN(auto vm, read_or_none<VmRecord>(store_, key::kVms + ended.vm.text));
    if (vm.version == 0 || vm.record.active_task != task) return txn;
    txn.conditions.push_back({vm.key, vm.version});
    const bool creation = ended.kind == TaskKind::vm_create || ended.kind == TaskKind::vm_import;
    const bool gone = outcome.ok() ? ended.kind == TaskKind::vm_delete : creation;
    if (!gone) {
      vm.record.active_task = {};
      const bool resized = outcome.ok() && ended.kind == TaskKind::vm_resize;
      if (auto* disk = disk_named(vm.record.spec, ended.disk); resized && disk != nullptr)
        disk->size_bytes = ended.size_bytes;
      for (const auto& [name, bytes] : sizes) {
        auto* disk = disk_named(vm.record.spec, name);
        if (outcome.ok() && disk != nullptr && disk->size_bytes == 0) disk->size_bytes = bytes;
      }
      txn.writes.push_back(put(vm.key, record::encode(vm.record)));
      return txn;
    }
    // safety: the owner record goes only while nobody owns; ids are never reused, so its epoch is not needed
    // again.
    TRY_ASSIGN(const auto owner, read_or_none<record::OwnerRecord>(store_, key::kOwners + ended.vm.text));
    if (is_owned(owner.record))
      return Error{Code::conflict, "VM " + ended.vm_name + " has an owner; it cannot be deleted."};
    txn.conditions.push_back({owner.key, owner.version});
    for (const auto& name :
         {vm.key, key::kVmNames + vm.record.spec.name, owner.key, key::kStatus + ended.vm.text}) {
      txn.writes.push_back(erase(name));
    }
    return txn;
  });
}

void emit(Store& store, record::EventRecord event, WallMs now) {
  stamp(event, HostId(event.host), now);
  const std::string name = key::kEvents + event.id;
  const auto committed = store.commit({{}, {put(name, record::encode(event))}});
  if (committed.ok()) return;
  log(Level::warn, "An event could not be written to the store.",
      {{"kind", event.kind},
       {"subject", event.subject},
       {"text", event.text},
       {"error", committed.error().what}});
}

Status check_name(const std::string& what, const std::string& name) {
  const bool plain = !name.empty() && name.size() <= 63 && name.front() != '-' &&
                     name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos;
  if (plain) return {};
  return Error{Code::invalid,
               fmt::format("The name of a {} has 1 to 63 of a-z, 0-9 and -, and does not begin with -: "
                           "\"{}\" is none.",
                           what, name.substr(0, 80))};
}

}  // namespace hf::api
