#include "core/motion/planner.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "core/ha/task_end.hpp"
#include "core/motion/relocation.hpp"

namespace hf::motion {
namespace {
using record::MotionRecord;
using record::TaskRecord;
using record::TaskState;
namespace key = record::key;

constexpr Duration kPreparingMax = 60s;

bool alive(const HostId& host, const PlannerContext& context) {
  auto found = context.health.find(host);
  return found != context.health.end() && found->second.health == ha::Health::alive;
}

bool is_open(const TaskRecord& task) {
  return task.kind == record::TaskKind::vm_migrate && !is_relocation(task) && task.state != TaskState::succeeded &&
         task.state != TaskState::failed;
}

// What an earlier move has left is being deleted, and that will not take long.
bool is_tidied(const VmId& vm, const PlannerContext& context) {
  const auto* left = context.view.relocation(vm);
  return left != nullptr && left->record.phase != record::RelocationRecord::Phase::copying &&
         alive(cleaner(left->record, context.view), context);
}

void reserve(const MotionRecord& motion, const View& view, std::vector<placement::Candidate>& candidates) {
  auto vm = view.vms.find(motion.vm);
  for (auto& candidate : candidates) {
    if (vm == view.vms.end() || candidate.host->host != motion.to) continue;
    candidate.used_mib += vm->second.record.spec.memory_mib;
    ++candidate.vms;
  }
}
}  // namespace

int limit_of(const record::HostRecord& host, const Limits& limits) {
  const int link = host.motion_mbit >= limits.fast_mbit ? limits.fast_link : limits.slow_link;
  return std::min(limits.host, link);
}

void Planner::tick(const PlannerContext& context, Actions& out) {
  begun_.forget(context.now, [&](const VmId& vm) { return context.view.motion(vm) != nullptr; });
  supervise(context);
  endings_.reconcile(context.view, context.now, out);
  begin(context, out);
}

void Planner::supervise(const PlannerContext& context) {
  for (auto it = seen_.begin(); it != seen_.end();) {
    it = context.view.motion(it->first) == nullptr ? seen_.erase(it) : std::next(it);
  }
  for (const auto& [vm, stored] : context.view.motions) {
    const MotionRecord& motion = stored.record;
    Seen& seen = seen_[vm];
    if (seen.id != motion.id || seen.phase != motion.phase) seen = {motion.id, motion.phase, context.now, context.now};
    if (alive(motion.from, context) && alive(motion.to, context)) seen.in_contact = context.now;
    const Standing stands = standing(motion, context.view);
    auto record = context.view.vms.find(vm);
    const bool wanted = record != context.view.vms.end() && record->second.record.active_task == motion.id;
    const bool preparing = motion.phase == MotionRecord::Phase::preparing;
    std::string why;
    if (stands == Standing::over) {
      why = "The VM was restarted, stopped or taken over while it was to move.";
    } else if (stands == Standing::pending && !wanted) {
      why = "Another command has taken its place.";
    } else if (stands == Standing::pending && context.now - seen.in_contact >= absence_max_) {
      why = "Host " + (alive(motion.to, context) ? motion.from.text : motion.to.text) + " has lost its contact.";
    } else if (const std::string closed = why_closed(motion.to, context.view);
               stands == Standing::pending && !closed.empty()) {
      why = "Host " + motion.to.text + " " + closed + ".";
    } else if (stands == Standing::pending && preparing && context.now - seen.since >= kPreparingMax) {
      why = "Host " + motion.to.text + " was not ready within a minute.";
    }
    if (!why.empty()) endings_.want(vm, motion.id, Error{Code::failed, why});
  }
}

void Planner::begin(const PlannerContext& context, Actions& out) {
  std::vector<const TaskRecord*> waiting;
  for (const auto& [id, stored] : context.view.tasks) {
    const TaskRecord& task = stored.record;
    auto vm = context.view.vms.find(task.vm);
    if (!is_open(task) || vm == context.view.vms.end() || vm->second.record.active_task != id) continue;
    if (context.view.motion(task.vm) != nullptr || begun_.has(task.vm)) continue;
    const auto* owner = context.view.owner(task.vm);
    // Arrived, and its record is erased already: the destination ends the task.
    if (owner != nullptr && owner->record.motion == id) continue;
    if (called_off(task, context.view)) continue;  // Evacuation ends it
    waiting.push_back(&task);
  }
  std::sort(waiting.begin(), waiting.end(), [](const auto* a, const auto* b) {
    return std::make_pair(a->created, a->id) < std::make_pair(b->created, b->id);
  });
  if (waiting.empty()) return;
  auto candidates = use_of_hosts(context.view, context.health);
  add_begun(context.view, candidates);
  for (const auto* task : waiting) plan(*task, context, candidates, out);
}

void Planner::plan(const TaskRecord& task, const PlannerContext& context,
                   std::vector<placement::Candidate>& candidates, Actions& out) {
  const Answer answer = check(
      {context.view, context.health, candidates, task.vm, task.to, task.limits.engine, disks_of(task)});
  if (!answer.reasons.empty() && is_tidied(task.vm, context)) return;
  if (!answer.reasons.empty()) return refuse(task, answer.reasons, context, out);
  const auto& owner = *context.view.owner(task.vm);
  MotionRecord motion;
  motion.id = task.id;
  motion.vm = task.vm;
  motion.from = owner.record.host;
  motion.to = answer.to;
  motion.epoch = owner.record.epoch;
  motion.limits = task.limits;
  motion.limits.engine = answer.engine;
  motion.disks = disks_of(task);
  if (!within_limits(motion.from, motion, context) || !within_limits(motion.to, motion, context)) return;
  TypedTxn txn;
  txn.conditions.push_back({key::kMotions + task.vm.text, 0});
  txn.conditions.push_back({key::kOwners + task.vm.text, owner.version});
  txn.conditions.push_back({key::kVms + task.vm.text, context.view.vms.at(task.vm).version});
  txn.conditions.push_back({key::kLeader, context.view.leader->version});
  if (bug_ != ha::KeptBug::placement_ignores_maintenance) {
    txn.conditions.push_back({key::kMaintenance + answer.to.text, 0});
  }
  if (takes_disks(motion)) txn.conditions.push_back({key::kRelocations + task.vm.text, 0});
  txn.writes.push_back({key::kMotions + task.vm.text, motion, 0});
  reserve(motion, context.view, candidates);
  begun_.send(motion.vm, motion, std::move(txn), context.now, out);
}

void Planner::add_begun(const View& view, std::vector<placement::Candidate>& candidates) const {
  begun_.for_each([&](const MotionRecord& motion) { reserve(motion, view, candidates); });
}

bool Planner::within_limits(const HostId& host, const MotionRecord& one_more, const PlannerContext& context) const {
  const auto cost = [&](const MotionRecord& motion) { return takes_disks(motion) ? limits_.with_disks : 1; };
  int used = 0;
  const auto count = [&](const MotionRecord& motion) {
    used += motion.from == host || motion.to == host ? cost(motion) : 0;
  };
  for (const auto& [vm, motion] : context.view.motions) count(motion.record);
  begun_.for_each(count);
  return used == 0 || used + cost(one_more) <= limit_of(context.view.hosts.at(host).record, limits_);
}

void Planner::refuse(const TaskRecord& task, const std::vector<std::string>& reasons, const PlannerContext& context,
                     Actions& out) {
  TypedTxn txn;
  const auto& vm = context.view.vms.at(task.vm);
  const Error why{Code::unsupported, fmt::format("{}", fmt::join(reasons, "\n"))};
  ha::free_of_task(vm.record, vm.version, txn);
  ha::end_task(task, &why, txn);
  txn.conditions.push_back({key::kLeader, context.view.leader->version});
  txn.conditions.push_back({key::kMotions + task.vm.text, 0});
  MotionRecord none;
  none.vm = task.vm;
  begun_.send(task.vm, none, std::move(txn), context.now, out);
}

bool Planner::on(const ha::event::TxnDone& done, Instant now) { return endings_.on(done, now) || begun_.on(done); }

}  // namespace hf::motion
