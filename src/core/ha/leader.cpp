#include "core/ha/leader.hpp"

#include <algorithm>
#include <array>

#include "core/ha/task_end.hpp"

namespace hf::ha {
namespace {
using record::Desired;
using record::OwnerRecord;
using record::VmState;
using Phase = OwnerRecord::Phase;
namespace key = record::key;

// After the n-th failed start the next is tried this much later; it never gives up (vSphere: 0, 2, 6, 14, 30 min,
// then never).
constexpr std::array<Duration, 5> kRetryAfter = {0s, 10s, 30s, 120s, 300s};
constexpr Duration kSwapPatience = 5s;

int rank(const record::VmRecord& vm) { return static_cast<int>(vm.spec.ha.priority); }
}  // namespace

struct Leader::Placement {
  std::vector<placement::Candidate> candidates;  // alive hosts only
  std::map<HostId, std::size_t> index;
  std::map<HostId, int> starting;
  std::map<std::string, std::string> datastore_ids;

  Placement(const LeaderContext& context, const Leader& leader)
      : candidates(motion::use_of_hosts(context.view, leader.health_)) {
    for (const auto& [id, datastore] : context.view.datastores) datastore_ids[datastore.record.name] = id;
    leader.planner_.add_begun(context.view, candidates);
    for (std::size_t at = 0; at < candidates.size(); ++at) index[candidates[at].host->host] = at;
    for (const auto& [vm, owner] : context.view.owners) {
      if (owner.record.phase == Phase::released) continue;
      const auto* status = context.view.status_of(vm);
      const bool up = status != nullptr && status->record.epoch == owner.record.epoch &&
                      (status->record.state == VmState::running || status->record.state == VmState::paused);
      if (!up) ++starting[owner.record.host];
    }
    if (leader.bug_ != KeptBug::placement_ignores_motions) return;
    for (const auto& [vm, stored] : context.view.motions) {
      auto found = index.find(motion::other_side(stored.record, context.view));
      if (found != index.end()) candidates[found->second].used_mib -= context.view.vms.at(vm).record.spec.memory_mib;
    }
  }
  void add(const HostId& host, std::uint64_t memory_mib) {
    auto found = index.find(host);
    if (found == index.end()) return;
    candidates[found->second].used_mib += memory_mib;
    ++candidates[found->second].vms;
  }
};

bool Leader::is_leader(const LeaderContext& context) const {
  const auto& leader = context.view.leader;
  return context.session.active() && leader && leader->record.host == self_ &&
         leader->record.session == context.session.id();
}

Health Leader::health_of(const HostId& host) const {
  auto found = health_.find(host);
  return found == health_.end() ? Health::unknown : found->second.health;
}

bool Leader::dead(const HostId& host) const { return health_of(host) == Health::dead && brake_.empty(); }

void Leader::note_contact(const LeaderContext& context) {
  const bool contact = context.session.active() && !context.guard_lapsed && context.view.synced;
  const bool lapsed_between = contact_generation_ != context.guard_generation;
  if (contact && (!in_contact_ || lapsed_between)) contact_since_ = context.now;
  contact_generation_ = context.guard_generation;
  in_contact_ = contact;
}

void Leader::campaign(const LeaderContext& context, Actions& out) {
  const auto& leader = context.view.leader;
  // A record of an earlier life of this host would only end with its lease; it is ours to replace.
  const bool vacant = !leader || leader->record.host == self_;
  if (!vacant || is_leader(context) || campaign_op_ != 0 || context.now < campaign_at_) return;
  campaign_op_ = make_op_();
  TypedTxn txn;
  txn.conditions.push_back({key::kLeader, leader ? leader->version : 0});
  txn.conditions.push_back(context.session.alive_condition());
  txn.writes.push_back({key::kLeader, record::LeaderRecord{self_, context.session.id()}, context.session.lease()});
  out.emplace_back(action::Commit{campaign_op_, std::move(txn)});
}

bool Leader::on(const event::TxnDone& done, const LeaderContext& context) {
  if (done.op == campaign_op_ && campaign_op_ != 0) {
    campaign_op_ = 0;
    campaign_at_ = context.now + timing_.tick;
    return true;
  }
  if (done.op == level_op_ && level_op_ != 0) {
    level_op_ = 0;
    look_now_ = true;
    return true;
  }
  if (planner_.on(done, context.now) || relocations_.on(done, context.now) || evacuation_.on(done)) return true;
  auto found = pending_.find(done.op);
  if (found == pending_.end()) return false;
  // Lost, refused or done: the view tells, and each swap was conditional on it. Unknown: patience, then the same.
  if (done.outcome != Outcome::unknown) busy_until_.erase(found->second);
  pending_.erase(found);
  look_now_ = true;
  return true;
}

void Leader::tick(const LeaderContext& context, Actions& out) {
  note_contact(context);
  if (in_contact_) {
    campaign(context, out);
    assess_all(context, out);
  }
  if (!in_contact_ || !is_leader(context)) {
    look_now_ = true;
    return;
  }
  const motion::PlannerContext motions{context.view, context.session, health_, context.now};
  planner_.tick(motions, out);  // first: the others count what it began
  relocations_.tick(motions, out);
  evacuation_.tick(motions, planner_, out);
  if (look_due(context)) look(context, out);
}

// What a look finds depends on the view, the hosts' health, the brake, the swaps in flight and a few times to wait for.
bool Leader::look_due(const LeaderContext& context) const {
  return look_now_ || looked_revision_ != context.view.revision || context.now >= look_at_;
}

void Leader::look(const LeaderContext& context, Actions& out) {
  look_now_ = false;
  looked_revision_ = context.view.revision;
  look_at_ = Instant::max();
  raise_level(context, out);
  std::vector<std::pair<const record::VmRecord*, Next>> todo;
  for (const auto& [vm, record] : context.view.vms) {
    auto busy = busy_until_.find(vm);
    if (busy != busy_until_.end() && context.now < busy->second) {
      look_again_at(busy->second);
      continue;
    }
    const Next next = next_for(vm, record.record, context);
    if (next != Next::nothing) todo.emplace_back(&record.record, next);
  }
  fail_orphaned_tasks(context, out);
  if (todo.empty()) return;
  std::sort(todo.begin(), todo.end(), [](const auto& a, const auto& b) {
    return std::make_pair(rank(*a.first), a.first->id) < std::make_pair(rank(*b.first), b.first->id);
  });
  Placement placement(context, *this);
  for (const auto& [record, next] : todo) carry_out(next, record->id, context, placement, out);
}

void Leader::raise_level(const LeaderContext& context, Actions& out) {
  if (!context.view.cluster || context.view.hosts.empty() || level_op_ != 0) return;
  int lowest = record::kLevel;  // what this version does not know it does not switch on
  for (const auto& [host, record] : context.view.hosts) lowest = std::min(lowest, record.record.level);
  record::ClusterRecord cluster = context.view.cluster->record;
  if (lowest <= cluster.level) return;
  record::EventRecord event;
  event.severity = "info";
  event.kind = "cluster.level";
  event.subject = cluster.name;
  event.text = "All hosts have a Holdfast of level " + std::to_string(lowest) + ": it is in use from now on.";
  cluster.level = lowest;
  TypedTxn txn;
  txn.conditions.push_back({key::kCluster, context.view.cluster->version});
  txn.conditions.push_back({key::kLeader, context.view.leader->version});
  txn.writes.push_back({key::kCluster, cluster, 0});
  txn.events.push_back(std::move(event));
  level_op_ = make_op_();
  out.emplace_back(action::Commit{level_op_, std::move(txn)});
}

void Leader::assess_all(const LeaderContext& context, Actions& out) {
  std::size_t lost = 0;
  for (const auto& [host, record] : context.view.hosts) {
    Assessment now = context.observer.assess(host, context.view, context.now);
    if (now.health == Health::dead || now.health == Health::suspect) ++lost;
    auto& known = health_[host];
    if (known.health != now.health) look_now_ = true;
    if (known.health != now.health && is_leader(context)) report_health_change(host, known, now, out);
    known = std::move(now);
  }
  const bool braked = !brake_.empty();
  set_brake(lost, context);
  if (braked != !brake_.empty()) look_now_ = true;
}

void Leader::set_brake(std::size_t lost, const LeaderContext& context) {
  brake_.clear();
  if (bug_ == KeptBug::no_brake) return;
  if (context.now - contact_since_ < timing_.quiet) {
    brake_ = "this leader's own contact was broken a moment ago; hosts get time to come back";
  } else if (lost * 2 > context.view.hosts.size()) {
    brake_ = std::to_string(lost) + " of " + std::to_string(context.view.hosts.size()) +
             " hosts look lost: more likely it is this host that sees badly";
  }
}

void Leader::report_health_change(const HostId& host, const Assessment& before, const Assessment& after,
                                  Actions& out) const {
  const bool worth_it = after.health == Health::dead || before.health == Health::dead ||
                        after.health == Health::agent_down || after.health == Health::no_store;
  if (!worth_it) return;
  record::EventRecord event;
  event.severity = after.health == Health::alive ? "info" : after.health == Health::dead ? "error" : "warning";
  event.kind = "ha.host." + std::string(after.health == Health::alive ? "back" : name_of(after.health));
  std::replace(event.kind.begin(), event.kind.end(), ' ', '_');
  event.subject = host.text;
  event.text = "Host " + host.text + " is " + std::string(name_of(after.health)) + ": " + after.why + ".";
  out.emplace_back(action::Emit{event});
}

Leader::Next Leader::next_for(const VmId& vm, const record::VmRecord& record, const LeaderContext& context) {
  if (record.desired == Desired::running) return next_wanted(vm, record, context);
  const auto* owner = context.view.owner(vm);
  const bool held = owner != nullptr && owner->record.phase != Phase::released;
  if (held) {
    const bool unclaimed = owner->record.phase == Phase::assigned && health_of(owner->record.host) != Health::alive;
    // safety: as for a takeover, only a guarded VM of a dead host is known to stand still.
    const bool proven = owner->record.guarded && dead(owner->record.host);
    return unclaimed || proven ? Next::give_back : Next::nothing;
  }
  auto task = context.view.tasks.find(record.active_task);
  const bool stops = task != context.view.tasks.end() && (task->second.record.kind == record::TaskKind::vm_stop ||
                                                          task->second.record.kind == record::TaskKind::vm_kill);
  return stops ? Next::end_task : Next::nothing;
}

Leader::Next Leader::next_wanted(const VmId& vm, const record::VmRecord& record, const LeaderContext& context) {
  const auto* owner = context.view.owner(vm);
  if (owner == nullptr || owner->record.phase == Phase::released) {
    return retry_due(vm, context) ? Next::assign : Next::nothing;
  }
  if (owner->record.phase == Phase::assigned) {
    auto [seen, added] = assigned_seen_.try_emplace(vm, Seen{owner->version, context.now});
    if (!added && seen->second.version != owner->version) seen->second = {owner->version, context.now};
    const bool waited = context.now - seen->second.at >= timing_.claim_timeout;
    if (!waited) look_again_at(seen->second.at + timing_.claim_timeout);
    // safety: not yet claimed, so the swap alone decides: a claim changes the record's version.
    return waited || health_of(owner->record.host) != Health::alive ? Next::assign : Next::nothing;
  }
  // safety: an unguarded VM is never frozen, so its host's silence proves nothing.
  if (!record.spec.is_protected() || !owner->record.guarded) return Next::nothing;
  return dead(owner->record.host) ? Next::take_over : Next::nothing;
}

bool Leader::retry_due(const VmId& vm, const LeaderContext& context) {
  const auto* status = context.view.status_of(vm);
  if (status == nullptr || status->record.state != VmState::failed || status->record.attempts == 0) return true;
  auto [seen, added] = failed_seen_.try_emplace(vm, Seen{status->version, context.now});
  if (!added && seen->second.version != status->version) seen->second = {status->version, context.now};
  const auto step = std::min<std::size_t>(static_cast<std::size_t>(status->record.attempts), kRetryAfter.size()) - 1;
  const Instant due = seen->second.at + kRetryAfter.at(step);
  if (context.now < due) look_again_at(due);
  return context.now >= due;
}

void Leader::carry_out(Next next, const VmId& vm, const LeaderContext& context, Placement& placement, Actions& out) {
  switch (next) {
    case Next::nothing: return;
    case Next::assign: return assign(vm, false, context, placement, out);
    case Next::take_over: return assign(vm, true, context, placement, out);
    case Next::give_back: return give_back(vm, context, out);
    case Next::end_task: return end_task(vm, nullptr, context, out);
  }
}

void Leader::add_proof(const HostId& host, const LeaderContext& context, TypedTxn& txn) const {
  for (auto& condition : context.observer.proof_conditions(host, context.view)) {
    txn.conditions.push_back(std::move(condition));
  }
}

void Leader::assign(const VmId& vm, bool takeover, const LeaderContext& context, Placement& placement, Actions& out) {
  const auto& record = context.view.vms.at(vm).record;
  const auto* owner = context.view.owner(vm);
  const auto* status = context.view.status_of(vm);
  placement::Need need = placement::need_of(record, placement.datastore_ids);
  auto task = context.view.tasks.find(record.active_task);
  const bool commanded = task != context.view.tasks.end() && task->second.record.kind == record::TaskKind::vm_start;
  // `vm start --on` names the host of that start; what fails later is restarted wherever there is room.
  if (!commanded) need.pinned_host.clear();
  const bool failed_before = status != nullptr && status->record.state == VmState::failed;
  if (failed_before) need.excluded.insert(status->record.failed_hosts.begin(), status->record.failed_hosts.end());
  auto chosen = placement::choose(placement.candidates, need);
  // A command to start it ends once every host has failed; else it begins again with all of them.
  if (!chosen.ok() && failed_before && !commanded) {
    need.excluded.clear();
    chosen = placement::choose(placement.candidates, need);
  }
  if (!chosen.ok()) {
    const bool all_failed = failed_before && commanded;
    return cannot_place(vm, all_failed ? Error{Code::failed, status->record.message} : chosen.error(), context, out);
  }
  if (placement.starting[*chosen] >= kStartsPerHostMax) return;
  ++placement.starting[*chosen];
  placement.add(*chosen, record.spec.memory_mib);
  unplaced_.erase(vm);

  TypedTxn txn;
  txn.conditions.push_back({key::kOwners + vm.text, owner == nullptr ? 0 : owner->version});
  txn.conditions.push_back({key::kLeader, context.view.leader->version});
  if (bug_ != KeptBug::placement_ignores_maintenance) {
    txn.conditions.push_back({key::kMaintenance + chosen->text, 0});
  }
  OwnerRecord next;
  next.phase = Phase::assigned;
  next.host = *chosen;
  next.epoch = owner == nullptr ? Epoch{1} : owner->record.epoch.next();
  next.reason = "start";
  if (takeover) {
    const HostId& from = owner->record.host;
    next.reason = "restart: " + from.text + " is dead: " + health_.at(from).why;
    // safety: the proof is part of the swap.
    add_proof(from, context, txn);
    record::EventRecord event;
    event.severity = "warning";
    event.kind = "ha.vm.restart";
    event.vm = vm;
    event.subject = record.spec.name;
    event.text = "VM " + record.spec.name + " is restarted on " + chosen->text + ": host " + from.text +
                 " is dead: " + health_.at(from).why + ".";
    txn.events.push_back(std::move(event));
  }
  // safety: gives the right to run. The old owner, if any, is proven unable or has not taken it.
  txn.writes.push_back({key::kOwners + vm.text, next, 0});
  send(vm, std::move(txn), context, out);
}

void Leader::cannot_place(const VmId& vm, const Error& why, const LeaderContext& context, Actions& out) {
  const auto& record = context.view.vms.at(vm).record;
  const auto* owner = context.view.owner(vm);
  const bool held = owner != nullptr && owner->record.phase == Phase::claimed;
  auto task = context.view.tasks.find(record.active_task);
  if (!held && task != context.view.tasks.end() && task->second.record.kind == record::TaskKind::vm_start) {
    return end_task(vm, &why, context, out);
  }
  if (unplaced_[vm] == why.what) return;
  unplaced_[vm] = why.what;
  record::EventRecord event;
  event.severity = "error";
  event.kind = "ha.vm.unplaced";
  event.vm = vm;
  event.subject = record.spec.name;
  event.text = "VM " + record.spec.name + " cannot be restarted now: " + why.what;
  out.emplace_back(action::Emit{event});
}

void Leader::give_back(const VmId& vm, const LeaderContext& context, Actions& out) {
  const auto* owner = context.view.owner(vm);
  TypedTxn txn;
  txn.conditions.push_back({key::kOwners + vm.text, owner->version});
  txn.conditions.push_back({key::kLeader, context.view.leader->version});
  // safety: a claimed VM is taken from its host only with the proof.
  if (owner->record.phase == Phase::claimed) add_proof(owner->record.host, context, txn);
  OwnerRecord next;
  next.epoch = owner->record.epoch;
  next.reason = "given back: " + owner->record.host.text + " is dead";
  txn.writes.push_back({key::kOwners + vm.text, next, 0});
  record::VmStatus status;
  status.epoch = next.epoch;
  status.message = "Its host " + owner->record.host.text + " is dead; it was not wanted running.";
  txn.writes.push_back({key::kStatus + vm.text, status, 0});
  send(vm, std::move(txn), context, out);
}

void Leader::end_task(const VmId& vm, const Error* error, const LeaderContext& context, Actions& out) {
  const auto& stored = context.view.vms.at(vm);
  auto found = context.view.tasks.find(stored.record.active_task);
  if (found == context.view.tasks.end()) return;
  TypedTxn txn;
  record::VmRecord record = stored.record;
  if (error != nullptr) record.desired = Desired::stopped;
  free_of_task(std::move(record), stored.version, txn);
  // Decided by what is seen of the owner: an assignment that is not in the view yet makes it moot.
  const auto* owner = context.view.owner(vm);
  txn.conditions.push_back({key::kOwners + vm.text, owner == nullptr ? 0 : owner->version});
  ha::end_task(found->second.record, error, txn);
  send(vm, std::move(txn), context, out);
}

void Leader::fail_orphaned_tasks(const LeaderContext& context, Actions& out) {
  for (const auto& [vm, stored] : context.view.vms) {
    auto busy = busy_until_.find(vm);
    if (stored.record.active_task.empty() || (busy != busy_until_.end() && context.now < busy->second)) continue;
    auto task = context.view.tasks.find(stored.record.active_task);
    if (task == context.view.tasks.end() || task->second.record.host.empty()) continue;
    if (!dead(task->second.record.host)) continue;
    const Error error{Code::failed, "Host " + task->second.record.host.text + ", which carried this out, is dead."};
    end_task(vm, &error, context, out);
  }
}

void Leader::send(const VmId& vm, TypedTxn txn, const LeaderContext& context, Actions& out) {
  const OpId op = make_op_();
  pending_.emplace(op, vm);
  busy_until_[vm] = context.now + kSwapPatience;
  look_again_at(busy_until_[vm]);
  out.emplace_back(action::Commit{op, std::move(txn)});
}

}  // namespace hf::ha
