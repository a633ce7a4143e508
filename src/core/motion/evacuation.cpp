#include "core/motion/evacuation.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <vector>

#include "core/ha/task_end.hpp"

namespace hf::motion {
namespace {
using record::MaintenanceRecord;
using record::TaskRecord;
using record::TaskState;
namespace key = record::key;

constexpr Duration kLookEvery = 1s;
constexpr Duration kRetryAfter = 30s;
constexpr Duration kSwapPatience = 5s;
constexpr std::size_t kVmsNamed = 8;
constexpr std::size_t kReasonsNamed = 4;

// The first few of `all`, and how many there are besides.
std::string joined(const std::vector<std::string>& all, const std::string& between, std::size_t most) {
  std::string text;
  for (std::size_t n = 0; n < std::min(all.size(), most); ++n) text += (n == 0 ? "" : between) + all[n];
  return all.size() <= most ? text : fmt::format("{}{}and {} more.", text, between, all.size() - most);
}

bool has_motion(const HostId& host, const View& view) {
  return std::any_of(view.motions.begin(), view.motions.end(), [&](const auto& each) {
    return each.second.record.from == host || each.second.record.to == host;
  });
}
}  // namespace

struct Evacuation::Round {
  const PlannerContext& context;
  std::vector<placement::Candidate> candidates;  // with what this round has asked for
  std::set<HostId> asked = {};                   // maintenance records that a swap of this round insists on
};

void Evacuation::tick(const PlannerContext& context, const Planner& planner, Actions& out) {
  if (context.now < look_at_) return;
  look_at_ = context.now + kLookEvery;
  Round round{context, {}};
  call_off(round, out);
  if (context.view.maintenance.empty()) return tried_.clear();
  round.candidates = use_of_hosts(context.view, context.health);
  planner.add_begun(context.view, round.candidates);
  for (const auto& [host, maintenance] : context.view.maintenance) evacuate(maintenance, round, out);
}

void Evacuation::evacuate(const Maintenance& maintenance, Round& round, Actions& out) {
  const View& view = round.context.view;
  const HostId& host = maintenance.record.host;
  MaintenanceRecord now = maintenance.record;
  const auto held = view.held.find(host);
  std::vector<std::string> stay;
  if (held != view.held.end()) {
    for (const VmId& vm : held->second) {
      const std::string why = send_away(vm, maintenance, round, out);
      if (!why.empty()) stay.push_back(view.vms.at(vm).record.spec.name + ": " + why);
    }
  }
  const bool empty = held == view.held.end() && !has_motion(host, view);
  now.state = empty ? MaintenanceRecord::State::in : MaintenanceRecord::State::entering;
  now.message = stay.empty() ? "" : "It waits for " + joined(stay, " ", kVmsNamed);
  const std::string name = key::kMaintenance + host.text;
  // It would make what was asked for just now fail.
  if (round.asked.count(host) != 0) return;
  if (now == maintenance.record || in_flight(name, round.context.now)) return;
  TypedTxn txn;
  txn.conditions.push_back({name, maintenance.version});
  txn.conditions.push_back({key::kLeader, view.leader->version});
  txn.writes.push_back({name, now, 0});
  if (empty) {
    record::EventRecord event;
    event.severity = "info";
    event.kind = "host.maintenance.in";
    event.subject = host.text;
    event.text = "Host " + host.text + " is in maintenance: it has no VM any more.";
    txn.events.push_back(std::move(event));
  }
  send(name, std::move(txn), round.context.now, out);
}

std::string Evacuation::send_away(const VmId& id, const Maintenance& maintenance, Round& round, Actions& out) {
  const View& view = round.context.view;
  auto stored = view.vms.find(id);
  if (stored == view.vms.end() || view.motion(id) != nullptr) return {};
  if (in_flight(key::kVms + id.text, round.context.now)) return {};
  const record::VmRecord& vm = stored->second.record;
  auto task = view.tasks.find(vm.active_task);
  const bool asked = task != view.tasks.end() && task->second.record.kind == record::TaskKind::vm_migrate &&
                     task->second.record.datastore.empty();
  if (!vm.active_task.empty() && !asked) return "another command to it is under way.";
  if (!asked) {
    const std::string failed = failed_lately(id, round);
    if (!failed.empty()) return failed;
  }
  const Answer answer = check({view, round.context.health, round.candidates, id, {}, record::Engine::automatic});
  for (auto& candidate : round.candidates) {
    if (candidate.host->host != answer.to) continue;
    candidate.used_mib += vm.spec.memory_mib;
    ++candidate.vms;
  }
  if (asked) return {};  // the planner ends it with its reasons
  if (!answer.reasons.empty()) return joined(answer.reasons, " ", kReasonsNamed);
  ask(stored->second, maintenance, round, out);
  return {};
}

void Evacuation::ask(const Stored<record::VmRecord>& stored, const Maintenance& maintenance, Round& round,
                     Actions& out) {
  const View& view = round.context.view;
  const HostId& host = maintenance.record.host;
  record::VmRecord vm = stored.record;
  TaskRecord task;
  task.id = make_task_();
  task.kind = record::TaskKind::vm_migrate;
  task.vm = vm.id;
  task.vm_name = vm.spec.name;
  task.created = maintenance.record.since;
  task.requested_by = requester_of(host);
  vm.active_task = task.id;
  round.asked.insert(host);
  tried_[vm.id] = {task.id, {}};
  TypedTxn txn;
  txn.conditions.push_back({key::kVms + vm.id.text, stored.version});
  txn.conditions.push_back({key::kOwners + vm.id.text, view.owner(vm.id)->version});
  txn.conditions.push_back({key::kMaintenance + host.text, maintenance.version});
  txn.conditions.push_back({key::kLeader, view.leader->version});
  txn.writes.push_back({key::kVms + vm.id.text, vm, 0});
  txn.writes.push_back({key::kTasks + task.id.text, task, 0});
  send(key::kVms + vm.id.text, std::move(txn), round.context.now, out);
}

std::string Evacuation::failed_lately(const VmId& vm, const Round& round) {
  auto tried = tried_.find(vm);
  if (tried == tried_.end()) return {};
  const Instant now = round.context.now;
  auto task = round.context.view.tasks.find(tried->second.task);
  const bool failed = task != round.context.view.tasks.end() && task->second.record.state == TaskState::failed;
  if (failed && tried->second.retry_at == Instant{}) tried->second.retry_at = now + kRetryAfter;
  if (!failed || now >= tried->second.retry_at) {
    tried_.erase(tried);
    return {};
  }
  std::string why = task->second.record.message;
  std::replace(why.begin(), why.end(), '\n', ' ');
  return why.empty() ? "its motion has failed." : why;
}

void Evacuation::call_off(Round& round, Actions& out) {
  const View& view = round.context.view;
  for (const auto& [id, stored] : view.tasks) {
    const TaskRecord& task = stored.record;
    if (!called_off(task, view)) continue;
    auto vm = view.vms.find(task.vm);
    const auto* owner = view.owner(task.vm);
    if (vm == view.vms.end() || vm->second.record.active_task != id || owner == nullptr) continue;
    // Under way, or arrived and about to be noted.
    if (view.motion(task.vm) != nullptr || owner->record.motion == id) continue;
    if (in_flight(key::kVms + task.vm.text, round.context.now)) continue;
    TypedTxn txn;
    const Error why{Code::conflict, "It was cancelled: the VM need not leave its host any more."};
    ha::free_of_task(vm->second.record, vm->second.version, txn);
    ha::end_task(task, &why, txn);
    txn.conditions.push_back({key::kOwners + task.vm.text, owner->version});
    txn.conditions.push_back({key::kMotions + task.vm.text, 0});
    txn.conditions.push_back({key::kLeader, view.leader->version});
    send(key::kVms + task.vm.text, std::move(txn), round.context.now, out);
  }
}

bool Evacuation::in_flight(const std::string& name, Instant now) const {
  auto found = busy_until_.find(name);
  return found != busy_until_.end() && now < found->second;
}

void Evacuation::send(const std::string& name, TypedTxn txn, Instant now, Actions& out) {
  const OpId op = make_op_();
  ops_[op] = name;
  busy_until_[name] = now + kSwapPatience;
  out.emplace_back(ha::action::Commit{op, std::move(txn)});
}

bool Evacuation::on(const ha::event::TxnDone& done) {
  auto found = ops_.find(done.op);
  if (found == ops_.end()) return false;
  // Unknown: patience, then what the view says.
  if (done.outcome != ha::Outcome::unknown) busy_until_.erase(found->second);
  ops_.erase(found);
  return true;
}

}  // namespace hf::motion
