#include "core/motion/relocation_planner.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "core/ha/task_end.hpp"

namespace hf::motion {
namespace {
using record::RelocationRecord;
using record::TaskRecord;
using record::TaskState;
namespace key = record::key;
}  // namespace

void RelocationPlanner::tick(const PlannerContext& context, Actions& out) {
  begun_.forget(context.now, [&](const VmId& vm) { return context.view.relocation(vm) != nullptr; });
  supervise(context);
  abandonings_.reconcile(context.view, context.now, out);
  std::vector<const TaskRecord*> waiting;
  for (const auto& [id, stored] : context.view.tasks) {
    const TaskRecord& task = stored.record;
    auto vm = context.view.vms.find(task.vm);
    const bool open = task.state != TaskState::succeeded && task.state != TaskState::failed;
    if (!open || !is_relocation(task) || vm == context.view.vms.end()) continue;
    if (vm->second.record.active_task != id || begun_.has(task.vm)) continue;
    const auto* own = context.view.relocation(task.vm);
    if (own == nullptr || own->record.id != id) waiting.push_back(&task);
  }
  std::sort(waiting.begin(), waiting.end(), [](const auto* a, const auto* b) {
    return std::make_pair(a->created, a->id) < std::make_pair(b->created, b->id);
  });
  for (const auto* task : waiting) plan(*task, context, out);
}

void RelocationPlanner::supervise(const PlannerContext& context) {
  for (auto it = in_contact_.begin(); it != in_contact_.end();) {
    it = context.view.tasks.count(it->first) == 0 ? in_contact_.erase(it) : std::next(it);
  }
  for (const auto& [vm, stored] : context.view.relocations) {
    const RelocationRecord& relocation = stored.record;
    if (relocation.phase != RelocationRecord::Phase::copying) continue;
    Instant& seen = in_contact_.try_emplace(relocation.id, context.now).first->second;
    auto health = context.health.find(relocation.host);
    if (health != context.health.end() && health->second.health == ha::Health::alive) seen = context.now;
    std::string why;
    if (!can_commit(relocation, context.view)) {
      why = "The VM was restarted, stopped or taken over while its disks were to move.";
    } else if (context.now - seen >= absence_max_) {
      why = "Host " + relocation.host.text + " has lost its contact.";
    }
    if (!why.empty()) abandonings_.want(vm, relocation.id, Error{Code::failed, why});
  }
}

void RelocationPlanner::plan(const TaskRecord& task, const PlannerContext& context, Actions& out) {
  const Answer answer = check_relocation(
      {context.view, context.health, task.vm, disks_of(task)});
  const auto& vm = context.view.vms.at(task.vm);
  const auto* owner = context.view.owner(task.vm);
  TypedTxn txn;
  txn.conditions.push_back({key::kRelocations + task.vm.text, 0});
  txn.conditions.push_back({key::kMotions + task.vm.text, 0});
  txn.conditions.push_back({key::kLeader, context.view.leader->version});
  if (!answer.reasons.empty()) {
    // What the last move has left goes soon.
    if (context.view.relocation(task.vm) != nullptr) return;
    const Error why{Code::unsupported, fmt::format("{}", fmt::join(answer.reasons, "\n"))};
    ha::free_of_task(vm.record, vm.version, txn);
    ha::end_task(task, &why, txn);
    return begun_.send(task.vm, {}, std::move(txn), context.now, out);
  }
  if (!within_limits(answer.to, task.datastore, context.view)) return;
  txn.conditions.push_back({key::kOwners + task.vm.text, owner == nullptr ? 0 : owner->version});
  txn.conditions.push_back({key::kVms + task.vm.text, vm.version});
  txn.writes.push_back({key::kRelocations + task.vm.text, planned(task, answer.to, context.view), 0});
  begun_.send(task.vm, {answer.to, task.datastore}, std::move(txn), context.now, out);
}

bool RelocationPlanner::within_limits(const HostId& host, const std::string& datastore, const View& view) const {
  int at_host = 0, at_datastore = 0;
  const auto count = [&](const HostId& other, const std::string& target) {
    at_host += other == host ? 1 : 0;
    at_datastore += target == datastore ? 1 : 0;
  };
  for (const auto& [vm, stored] : view.relocations) {
    const bool copies = stored.record.phase == RelocationRecord::Phase::copying;
    if (copies) count(stored.record.host, stored.record.what.datastore);
  }
  begun_.for_each([&](const Place& place) { count(place.host, place.datastore); });
  return at_host < kHostMax && at_datastore < kDatastoreMax;
}

bool RelocationPlanner::on(const ha::event::TxnDone& done, Instant now) {
  return abandonings_.on(done, now) || begun_.on(done);
}

}  // namespace hf::motion
