#include "core/ha/agent.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/ensure.hpp"
#include "core/cpu/evc.hpp"
#include "core/ha/task_end.hpp"

namespace hf::ha {
namespace {
using record::Desired;
using record::OwnerRecord;
using record::TaskKind;
using record::VmState;
using Phase = OwnerRecord::Phase;
namespace key = record::key;

constexpr Duration kCrashWindow = 10min;    // VmSpec.ha.max_crash_restarts counts within it
constexpr Duration kThawRetry = 1s;
constexpr Duration kSwapRetry = 250ms;

std::string name_of(const VmId& vm, const View& view) {
  auto record = view.vms.find(vm);
  return record == view.vms.end() ? vm.text : record->second.record.spec.name;
}
}  // namespace

void Agent::on(const event::Adopted& adopted) {
  adopted_ = true;
  const auto take = [&](const std::vector<event::Adopted::Found>& found, Process process) {
    for (const auto& one : found) {
      locals_[one.vm] = local_of(one.epoch, one.motion, process);
      locals_[one.vm].memory_tracker = one.memory_tracker;
    }
  };
  take(adopted.running, Process::running);
  take(adopted.paused, Process::paused);
  take(adopted.incoming, Process::incoming);
}

Agent::Local Agent::local_of(Epoch epoch, TaskId motion, Process process) {
  Local local;
  local.epoch = epoch;
  local.motion = std::move(motion);
  local.process = process;
  return local;
}

bool Agent::has_process(const VmId& vm) const {
  auto local = locals_.find(vm);
  return local != locals_.end() && local->second.process != Process::killing;
}

bool Agent::runs(const VmId& vm, Epoch epoch) const {
  auto local = locals_.find(vm);
  return local != locals_.end() && local->second.epoch == epoch && local->second.process == Process::running;
}

void Agent::go_on(const VmId& vm, Epoch epoch) {
  held_.erase(vm);
  auto local = locals_.find(vm);
  if (local == locals_.end() || local->second.epoch != epoch || local->second.process != Process::running) return;
  local->second.process = Process::paused;
  local->second.may_go_on = true;
  local->second.asked_to_run = false;
  local->second.ask_again_at = Instant{};
}

void Agent::prepared(const VmId& vm, Epoch epoch, const std::string& memory_tracker) {
  auto local = locals_.find(vm);
  const bool waits = local != locals_.end() && local->second.process == Process::preparing;
  if (!waits || local->second.epoch != epoch) return;
  local->second.process = Process::incoming;
  local->second.memory_tracker = memory_tracker;
}

void Agent::unprepared(const VmId& vm, Epoch epoch) {
  auto local = locals_.find(vm);
  const bool waits = local != locals_.end() && local->second.process == Process::preparing;
  if (waits && local->second.epoch == epoch) locals_.erase(local);
}

std::vector<std::pair<VmId, Epoch>> Agent::incoming() const {
  std::vector<std::pair<VmId, Epoch>> result;
  for (const auto& [vm, local] : locals_) {
    if (local.process == Process::incoming) result.emplace_back(vm, local.epoch);
  }
  return result;
}

std::vector<std::pair<VmId, Epoch>> Agent::running() const {
  std::vector<std::pair<VmId, Epoch>> result;
  for (const auto& [vm, local] : locals_) result.emplace_back(vm, local.epoch);
  return result;
}

bool Agent::owned(const VmId& vm, const View& view) const {
  const auto* owner = view.owner(vm);
  return owner != nullptr && owner->record.phase == Phase::claimed && owner->record.host == self_;
}

// A VM with a disk that no other host sees would be frozen for nobody's sake.
bool Agent::is_guarded(const VmId& vm, const View& view) const {
  auto found = view.vms.find(vm);
  if (found == view.vms.end() || !found->second.record.spec.is_protected()) return false;
  const auto& spec = found->second.record.spec;
  auto local = [&](const std::string& name) {
    return std::any_of(view.datastores.begin(), view.datastores.end(), [&](const auto& entry) {
      return entry.second.record.name == name && !entry.second.record.shared;
    });
  };
  return !local(spec.datastore) &&
         std::none_of(spec.disks.begin(), spec.disks.end(), [&](const auto& disk) { return local(disk.datastore); });
}

void Agent::give_cpu(const VmId& vm, const View& view, record::OwnerRecord& owner) const {
  auto found = view.vms.find(vm);
  if (found == view.vms.end()) return;
  auto here = view.hosts.find(self_);
  const std::string baseline = view.cluster ? view.cluster->record.evc : "";
  const std::string accelerator = here == view.hosts.end() ? "" : here->second.record.accelerator;
  owner.cpu = cpu::option_for(found->second.record.spec, baseline, accelerator);
  owner.generation = found->second.record.generation;
}

bool Agent::arrived(const VmId& vm, const View& view) const {
  // safety: a claim after a takeover may have the same host and epoch. It names no motion: what waits for memory here
  // must not run under it.
  return owned(vm, view) && !view.owner(vm)->record.motion.empty();
}

const record::TaskRecord* Agent::active_task(const VmId& vm, const View& view) const {
  auto found = view.vms.find(vm);
  if (found == view.vms.end() || found->second.record.active_task.empty()) return nullptr;
  auto task = view.tasks.find(found->second.record.active_task);
  return task == view.tasks.end() ? nullptr : &task->second.record;
}

record::VmStatus Agent::status(const VmId&, VmState state, Epoch epoch, std::string message) const {
  record::VmStatus result;
  result.state = state;
  result.host = self_;
  result.epoch = epoch;
  result.message = std::move(message);
  return result;
}

void Agent::reconcile(const AgentContext& context, Actions& out) {
  for (auto& [op, pending] : pending_) {
    if (pending.read_again_at == Instant{} || context.now < pending.read_again_at) continue;
    pending.read_again_at = Instant{};
    out.emplace_back(action::Read{op, key::kOwners + pending.vm.text});
  }
  if (!adopted_ || !context.view.synced) return;
  std::set<VmId> mine;
  for (const auto& [vm, local] : locals_) mine.insert(vm);
  if (auto held = context.view.held.find(self_); held != context.view.held.end()) {
    mine.insert(held->second.begin(), held->second.end());
  }
  for (const auto& vm : mine) reconcile_vm(vm, context, out);
}

void Agent::reconcile_vm(const VmId& vm, const AgentContext& context, Actions& out) {
  auto local = locals_.find(vm);
  if (local != locals_.end()) {
    with_process(vm, local->second, context, out);
    return;
  }
  auto wait = not_before_.find(vm);
  if (held_.count(vm) != 0 || busy_.count(vm) != 0) return;
  if (wait != not_before_.end() && context.now < wait->second) return;
  without_process(vm, context, out);
}

void Agent::with_process(const VmId& vm, Local& local, const AgentContext& context, Actions& out) {
  if (local.process == Process::launching || local.process == Process::killing) return;
  if (local.process == Process::preparing) return;
  const auto* owner = context.view.owner(vm);
  const bool ours = owned(vm, context.view) && owner->record.epoch == local.epoch;
  if (local.process == Process::incoming && !(ours && arrived(vm, context.view))) return;
  // safety: the view never goes back and holds our own swaps, so an owner that is not (we, this epoch) has taken over.
  if (!ours && bug_ != KeptBug::keep_running_when_taken_over) {
    kill(vm, local, "the right to run it has gone to " + (owner == nullptr ? "nobody" : owner->record.host.text), out);
    return;
  }
  if (held_.count(vm) != 0) return;
  continue_paused(vm, local, context, out);
  if (busy_.count(vm) != 0) return;
  // One that is ours but has no record has one that cannot be read: no reason to stop it.
  auto record = context.view.vms.find(vm);
  const bool unwanted = record != context.view.vms.end() && record->second.record.desired == Desired::stopped;
  if (unwanted) bring_down(vm, local, context, out);
  else keep_running(vm, local, context, out);
}

void Agent::keep_running(const VmId& vm, Local& local, const AgentContext& context, Actions& out) {
  let_paused_run(vm, local, context, out);
  auto wait = not_before_.find(vm);
  if (!may_begin(context) || (wait != not_before_.end() && context.now < wait->second)) return;
  const bool frozen = context.guard.frozen.count(vm) != 0;
  const auto* owner = context.view.owner(vm);
  if (frozen && bug_ == KeptBug::thaw_without_claim) {
    out.emplace_back(action::Thaw{vm, local.epoch, context.guard.generation});
    return;
  }
  const bool thaw_under_way =
      local.thaw_sent == context.guard.generation && context.now - local.thaw_sent_at < kThawRetry;
  if ((frozen && !thaw_under_way) || needs_claim(vm, local, context)) {
    claim(vm, local.epoch, Kind::reclaim, owner->record.reason, context, out);
    return;
  }
  if (local.process == Process::incoming) return frozen ? void() : activate(vm, local, context, out);
  // safety: claimed in this life: nothing that an earlier one sent can land any more.
  if (local.process == Process::paused) local.may_go_on = true;
  else report_up(vm, local, context, out);
}

bool Agent::needs_claim(const VmId& vm, const Local& local, const AgentContext& context) const {
  if (context.view.owner(vm)->record.session != context.session.id()) return true;
  if (local.process != Process::incoming || bug_ == KeptBug::activate_ignores_generation) return false;
  if (local.confirmed) return local.confirmed != context.guard.generation;
  // safety: the commit counts as our claim only with the generation that stands in the record: it was read before.
  const auto* motion = context.view.motion(vm);
  const bool known = motion != nullptr && motion->record.id == context.view.owner(vm)->record.motion &&
                     motion->record.session_to == context.session.id();
  return !known || motion->record.generation_to != context.guard.generation;
}

void Agent::let_paused_run(const VmId& vm, Local& local, const AgentContext& context, Actions& out) {
  const bool may = local.may_go_on || bug_ == KeptBug::resume_on_restart_without_claim;
  const bool due = local.process == Process::paused && !local.asked_to_run && context.now >= local.ask_again_at;
  if (!may || !due || context.guard.frozen.count(vm) != 0) return;
  local.asked_to_run = true;
  // safety: needs no claim now: the guest is admitted and ours, it was stopped only for a commit that did not happen.
  out.emplace_back(action::AbortMotion{vm, local.epoch});
}

void Agent::activate(const VmId& vm, Local& local, const AgentContext& context, Actions& out) {
  if (local.asked_to_run || context.now < local.ask_again_at || context.view.vms.count(vm) == 0) return;
  local.asked_to_run = true;
  // safety: needs_claim has seen that the confirmation is of this generation; the guard looks again.
  out.emplace_back(action::Activate{context.view.vms.at(vm).record, context.view.owner(vm)->record,
                                    context.guard.generation});
}

void Agent::continue_paused(const VmId& vm, const Local& local, const AgentContext& context, Actions& out) {
  auto pause = pauses_.find(vm);
  if (pause == pauses_.end() || pause->second.epoch() != local.epoch) return;
  if (pause->second.is_over(context.now)) {
    pauses_.erase(pause);
    return;
  }
  // safety: a guest in motion stands still when its motion process says so; QEMU calls that io-error too, if it was.
  if (context.view.motion(vm) != nullptr) return;
  if (!may_begin(context) || context.guard.frozen.count(vm) != 0) return;
  // safety: ours in this epoch, as the caller has seen; the guard's freeze stays over it.
  if (pause->second.take_turn(context.now)) out.emplace_back(action::Continue{vm, local.epoch});
}

void Agent::bring_down(const VmId& vm, Local& local, const AgentContext& context, Actions& out) {
  const auto* task = active_task(vm, context.view);
  const bool never_asked = local.process == Process::incoming || local.process == Process::paused;
  const bool at_once = task == nullptr || task->kind != TaskKind::vm_stop || never_asked ||
                       context.guard.frozen.count(vm) != 0;
  if (at_once) {
    kill(vm, local, "it was told to stop", out);
    return;
  }
  if (local.process != Process::stopping) {
    const auto& spec = context.view.vms.at(vm).record.spec;
    const int seconds = task->timeout_seconds > 0 ? task->timeout_seconds : spec.stop_timeout_seconds;
    local.process = Process::stopping;
    local.kill_at = context.now + std::chrono::seconds(seconds);
    out.emplace_back(action::AskStop{vm});
  } else if (context.now >= local.kill_at) {
    kill(vm, local, "it did not stop within its time limit", out);
  }
}

void Agent::kill(const VmId& vm, Local& local, const std::string& why, Actions& out) {
  if (local.kill_sent) return;
  local.kill_sent = true;
  local.process = Process::killing;
  out.emplace_back(action::Kill{vm, why});
}

void Agent::without_process(const VmId& vm, const AgentContext& context, Actions& out) {
  const auto* owner = context.view.owner(vm);
  if (owner == nullptr || owner->record.host != self_ || !context.session.active()) return;
  auto record = context.view.vms.find(vm);
  const bool wanted = record != context.view.vms.end() && record->second.record.desired == Desired::running;
  if (!wanted) {
    release(vm, status(vm, VmState::stopped, owner->record.epoch, "It was stopped."), nullptr, context, out);
    return;
  }
  if (auto failed = launch_error_.find(vm);
      failed != launch_error_.end() && failed->second.first == owner->record.epoch) {
    const auto* before = context.view.status_of(vm);
    record::VmStatus now = status(vm, VmState::failed, owner->record.epoch, failed->second.second.what);
    now.attempts = 1 + (before != nullptr ? before->record.attempts : 0);
    if (before != nullptr) now.failed_hosts = before->record.failed_hosts;
    now.failed_hosts.push_back(self_.text);
    release(vm, now, nullptr, context, out);
    return;
  }
  if (!may_begin(context)) return;
  if (owner->record.phase == Phase::assigned) {
    claim(vm, owner->record.epoch, Kind::claim, owner->record.reason, context, out);
  } else {
    restart_in_place(vm, context, out);
  }
}

void Agent::restart_in_place(const VmId& vm, const AgentContext& context, Actions& out) {
  const auto& owner = context.view.owner(vm)->record;
  const auto& record = context.view.vms.at(vm).record;
  auto exit = last_exit_.find(vm);
  const bool exited = exit != last_exit_.end() && exit->second.first == owner.epoch;
  if (exited && exit->second.second == ExitKind::guest_shutdown) {
    // The guest shut itself down: that is its user's will, not a failure.
    release(vm, status(vm, VmState::stopped, owner.epoch, "The guest shut itself down."), nullptr, context, out);
    return;
  }
  auto& times = crashes_[vm].times;
  times.erase(std::remove_if(times.begin(), times.end(), [&](Instant t) { return context.now - t > kCrashWindow; }),
              times.end());
  if (exited && static_cast<int>(times.size()) > record.spec.ha.max_crash_restarts) {
    launch_error_[vm] = {owner.epoch, Error{Code::failed, "Its QEMU ended " + std::to_string(times.size()) +
                                                              " times within 10 minutes; the last time: " +
                                                              crashes_[vm].last}};
    return;
  }
  if (exited && !record.spec.is_protected()) {
    release(vm, status(vm, VmState::crashed, owner.epoch, "Its QEMU ended: " + crashes_[vm].last), nullptr,
            context, out);
    return;
  }
  // safety: each new process has an epoch of its own, also on the same host.
  const Epoch epoch = bug_ == KeptBug::epoch_not_raised ? owner.epoch : owner.epoch.next();
  claim(vm, epoch, Kind::claim, exited ? "restart in place: its QEMU ended" : "restart in place", context, out);
}

void Agent::claim(const VmId& vm, Epoch epoch, Kind kind, const std::string& reason, const AgentContext& context,
                  Actions& out) {
  const auto* owner = context.view.owner(vm);
  Pending pending;
  pending.kind = kind;
  pending.vm = vm;
  // safety: read before the swap is sent; the guard acts only if it is still its generation (no freeze in between).
  pending.generation = context.guard.generation;
  pending.was_frozen = context.guard.frozen.count(vm) != 0;
  const bool guarded = kind == Kind::reclaim ? owner->record.guarded : is_guarded(vm, context.view);
  // safety: a reclaim keeps what the guest was started with, and names the motion as long as that is what brought this
  // epoch here.
  if (kind == Kind::reclaim) pending.written = owner->record;
  else give_cpu(vm, context.view, pending.written);
  pending.written.phase = Phase::claimed;
  pending.written.host = self_;
  pending.written.epoch = epoch;
  pending.written.session = context.session.id();
  pending.written.guarded = guarded;
  pending.written.reason = reason;
  TypedTxn txn;
  txn.conditions.push_back({key::kOwners + vm.text, owner->version});
  txn.conditions.push_back(context.session.alive_condition());
  // safety: the swap that takes (or keeps) the right to run.
  txn.writes.push_back({key::kOwners + vm.text, pending.written, 0});
  if (kind == Kind::claim) {
    // safety: the VM starts with the images that the store's spec names, not with those of an older one: a relocation
    // may have committed that this view has not seen. After this swap none can: it insists on the owner record.
    const auto record = context.view.vms.find(vm);
    if (record != context.view.vms.end() && bug_ != KeptBug::claim_ignores_spec) {
      txn.conditions.push_back({key::kVms + vm.text, record->second.version});
    }
    auto starting = status(vm, VmState::starting, epoch, reason);
    const auto* before = context.view.status_of(vm);
    if (before != nullptr) {
      starting.attempts = before->record.attempts;
      starting.failed_hosts = before->record.failed_hosts;
    }
    txn.writes.push_back({key::kStatus + vm.text, starting, 0});
  }
  send(std::move(pending), std::move(txn), out);
}

void Agent::release(const VmId& vm, record::VmStatus status, const Error* error, const AgentContext& context,
                    Actions& out) {
  ENSURE(locals_.count(vm) == 0, "a VM with a process is never released");
  const auto* owner = context.view.owner(vm);
  Pending pending;
  pending.kind = Kind::release;
  pending.vm = vm;
  pending.written.epoch = owner->record.epoch;
  pending.written.reason = status.message;
  TypedTxn txn;
  txn.conditions.push_back({key::kOwners + vm.text, owner->version});
  // safety: given up only with no process here.
  txn.writes.push_back({key::kOwners + vm.text, pending.written, 0});
  txn.writes.push_back({key::kStatus + vm.text, status, 0});
  auto record = context.view.vms.find(vm);
  const bool by_itself = status.state == VmState::stopped || status.state == VmState::crashed;
  if (record != context.view.vms.end() && by_itself) {
    record::VmRecord changed = record->second.record;
    changed.desired = Desired::stopped;
    const auto* task = active_task(vm, context.view);
    const Error unmoved{Code::failed, "The VM ended while it was to move: " + status.message};
    const bool moves = error == nullptr && task != nullptr && task->kind == TaskKind::vm_migrate;
    add_finished_task(vm, moves ? &unmoved : error, context, txn, &changed);
  }
  send(std::move(pending), std::move(txn), out);
}

void Agent::add_finished_task(const VmId& vm, const Error* error, const AgentContext& context, TypedTxn& txn,
                              const record::VmRecord* changed) const {
  const auto& stored = context.view.vms.at(vm);
  if (const auto* active = active_task(vm, context.view)) {
    record::TaskRecord task = *active;
    auto local = locals_.find(vm);
    if (error == nullptr && task.kind == TaskKind::vm_migrate && local != locals_.end()) {
      task.report.resume_us = static_cast<std::uint64_t>(local->second.stood / std::chrono::microseconds(1));
    }
    end_task(std::move(task), error, txn);
  }
  free_of_task(changed != nullptr ? *changed : stored.record, stored.version, txn);
}

void Agent::report_up(const VmId& vm, Local& local, const AgentContext& context, Actions& out) {
  auto stored = context.view.vms.find(vm);
  if (stored == context.view.vms.end()) return;  // its record cannot be read: there is nobody to tell
  const auto& record = stored->second.record;
  auto pause = pauses_.find(vm);
  const bool paused = pause != pauses_.end() && pause->second.epoch() == local.epoch;
  const auto* task = active_task(vm, context.view);
  if (task != nullptr && task->kind == TaskKind::vm_reset && local.reset_done != task->id) {
    local.reset_done = task->id;
    out.emplace_back(action::Reset{vm});
  }
  record::VmStatus now = status(vm, VmState::running, local.epoch, "Running.");
  if (paused) now = status(vm, VmState::paused, local.epoch, pause->second.why(record.spec));
  const auto* known = context.view.status_of(vm);
  const bool same_life = known != nullptr && known->record.epoch == local.epoch;
  const bool was_paused = same_life && known->record.state == VmState::paused;
  const bool said = same_life && known->record.state == now.state && (!paused || known->record.message == now.message);
  now.memory_tracker = local.memory_tracker;
  const bool tracker_said = said && known->record.memory_tracker == now.memory_tracker;
  const bool moved = task != nullptr && task->id == context.view.owner(vm)->record.motion;
  const bool ends_task =
      task != nullptr && (moved || task->kind == TaskKind::vm_reset || task->kind == TaskKind::vm_start);
  if (tracker_said && !ends_task) return;
  Pending pending;
  pending.kind = Kind::finish;
  pending.vm = vm;
  TypedTxn txn;
  txn.conditions.push_back({key::kOwners + vm.text, context.view.owner(vm)->version});
  if (auto host = context.view.hosts.find(self_); host != context.view.hosts.end()) {
    now.accelerator = host->second.record.accelerator;
  }
  txn.writes.push_back({key::kStatus + vm.text, now, 0});
  if (paused && !said) txn.events.push_back(paused_event(record, now));
  if (was_paused && !paused) txn.events.push_back(continued_event(record));
  if (ends_task) add_finished_task(vm, nullptr, context, txn);
  send(std::move(pending), std::move(txn), out);
}

void Agent::send(Pending pending, TypedTxn txn, Actions& out) {
  const OpId op = make_op_();
  busy_.insert(pending.vm);
  pending_.emplace(op, std::move(pending));
  out.emplace_back(action::Commit{op, std::move(txn)});
}

bool Agent::on(const event::TxnDone& done, const AgentContext& context, Actions& out) {
  auto found = pending_.find(done.op);
  if (found == pending_.end()) return false;
  Pending pending = found->second;
  const bool counts_as_done = bug_ == KeptBug::unknown_is_success && done.outcome == Outcome::unknown;
  // Known not to have happened at all, or to have lost against somebody's newer write: look at the facts again.
  if (done.outcome == Outcome::unavailable || done.outcome == Outcome::done || counts_as_done) {
    pending_.erase(found);
    settle(pending, done.outcome == Outcome::done || counts_as_done, context, out);
    return true;
  }
  if (pending.reading) return true;
  found->second.reading = true;
  out.emplace_back(action::Read{done.op, key::kOwners + pending.vm.text});
  return true;
}

bool Agent::on(const event::KeyRead& read, const AgentContext& context, Actions& out) {
  auto found = pending_.find(read.op);
  if (found == pending_.end()) return false;
  if (!read.ok) {
    found->second.read_again_at = context.now + kSwapRetry;
    return true;
  }
  const Pending pending = found->second;
  pending_.erase(found);
  const auto* owner = std::get_if<OwnerRecord>(&read.state.value);
  const bool claims = pending.kind == Kind::claim || pending.kind == Kind::reclaim;
  // Session and epoch make our claim recognisable; a reclaim that changed nothing is simply done again.
  const bool ours = pending.kind == Kind::claim && owner != nullptr && *owner == pending.written;
  settle(pending, claims && ours, context, out);
  return true;
}

void Agent::settle(const Pending& pending, bool done, const AgentContext& context, Actions& out) {
  const VmId& vm = pending.vm;
  busy_.erase(vm);
  if (!done) {
    not_before_[vm] = context.now + kSwapRetry;
    return;
  }
  not_before_.erase(vm);
  if (pending.kind == Kind::release) {
    launch_error_.erase(vm);
    last_exit_.erase(vm);
  } else if (pending.kind == Kind::claim) {
    auto record = context.view.vms.find(vm);
    if (record == context.view.vms.end() || locals_.count(vm) != 0) return;
    last_exit_.erase(vm);
    locals_[vm] = local_of(pending.written.epoch, {}, Process::launching);
    out.emplace_back(action::Launch{record->second.record, pending.written, pending.generation});
  } else if (pending.kind == Kind::reclaim) {
    auto local = locals_.find(vm);
    if (local == locals_.end()) return;
    local->second.confirmed = pending.generation;
    if (!pending.was_frozen) return;
    local->second.thaw_sent = pending.generation;
    local->second.thaw_sent_at = context.now;
    // safety: the claim was made after the freeze: generation is the guard's from before the swap was sent.
    out.emplace_back(action::Thaw{vm, local->second.epoch, pending.generation});
  }
}

void Agent::on(const event::Launched& launched) {
  auto local = locals_.find(launched.vm);
  if (local == locals_.end() || local->second.epoch != launched.epoch) return;
  if (launched.ok) {
    local->second.process = Process::running;
    local->second.memory_tracker = launched.memory_tracker;
    return;
  }
  locals_.erase(local);
  pauses_.erase(launched.vm);
  // Refused by the guard: contact broke on the way; the facts decide what comes next.
  if (!launched.refused) launch_error_[launched.vm] = {launched.epoch, launched.error};
}

void Agent::on(const event::GuardReport& report, const AgentContext& context, Actions& out) {
  for (const auto& vm : report.frozen) frozen_.try_emplace(vm, FrozenSince{context.now, !guard_heard_});
  guard_heard_ = true;
  for (auto it = frozen_.begin(); it != frozen_.end();) {
    if (report.frozen.count(it->first) != 0) {
      ++it;
      continue;
    }
    const auto [vm, since] = *it;
    it = frozen_.erase(it);
    // One that is killed leaves the guard as well: it was not thawed.
    auto local = locals_.find(vm);
    const bool goes_on = local != locals_.end() && local->second.process == Process::running;
    if (!goes_on) continue;
    record::EventRecord event;
    event.severity = "warning";
    event.kind = "ha.vm.frozen";
    event.vm = vm;
    event.subject = name_of(vm, context.view);
    event.text = fmt::format("VM {} was frozen {}{:.1f} s: {} had lost contact with the store and its datastores.",
                             event.subject, since.at_least ? "at least " : "",
                             std::chrono::duration<double>(context.now - since.at).count(), self_.text);
    out.emplace_back(action::Emit{event});
  }
}

void Agent::on(const event::Paused& paused, Instant now) {
  auto [pause, is_new] = pauses_.try_emplace(paused.vm, paused, now);
  if (!is_new && pause->second.epoch() == paused.epoch) pause->second.again(paused);
  else if (!is_new && pause->second.epoch() < paused.epoch) pause->second = Pause(paused, now);
}

void Agent::on(const event::WentOn& went_on, Instant now) {
  auto pause = pauses_.find(went_on.vm);
  if (pause != pauses_.end() && pause->second.epoch() == went_on.epoch) pause->second.go_on(now);
}

void Agent::on(const event::MotionAborted& aborted, Instant now) {
  auto local = locals_.find(aborted.vm);
  const bool asked = local != locals_.end() && local->second.process == Process::paused && local->second.asked_to_run;
  if (!asked || local->second.epoch != aborted.epoch) return;
  local->second.asked_to_run = false;
  local->second.ask_again_at = now + kThawRetry;
  if (aborted.ok) local->second.process = Process::running;
}

void Agent::on(const event::Activated& activated, Instant now) {
  auto local = locals_.find(activated.vm);
  const bool asked = local != locals_.end() && local->second.process == Process::incoming && local->second.asked_to_run;
  if (!asked || local->second.epoch != activated.epoch) return;
  local->second.asked_to_run = false;
  local->second.ask_again_at = now + kSwapRetry;
  if (!activated.ok) return;
  local->second.process = Process::running;
  local->second.stood = activated.stood;
}

void Agent::on(const event::Exited& exited, const AgentContext& context, Actions& out) {
  auto local = locals_.find(exited.vm);
  const bool known = local != locals_.end() && local->second.epoch == exited.epoch &&
                     local->second.motion == exited.motion;
  const bool killed_by_us = known && local->second.kill_sent;
  if (known) locals_.erase(local);
  if (auto pause = pauses_.find(exited.vm); pause != pauses_.end() && pause->second.epoch() == exited.epoch)
    pauses_.erase(pause);
  // An earlier process of a VM that has been given a newer epoch since is nobody's loss.
  const bool present = owned(exited.vm, context.view) && context.view.owner(exited.vm)->record.epoch == exited.epoch;
  if (!present || killed_by_us) return;
  last_exit_[exited.vm] = {exited.epoch, exited.kind};
  auto& crashes = crashes_[exited.vm];
  crashes.last = exited.text.empty() ? "no last words" : exited.text;
  if (exited.kind == ExitKind::guest_shutdown) return;
  crashes.times.push_back(context.now);
  record::EventRecord event;
  event.severity = "error";
  event.kind = "vm.crashed";
  event.vm = exited.vm;
  event.subject = name_of(exited.vm, context.view);
  event.text = "QEMU of VM " + event.subject + " ended unexpectedly: " + crashes.last;
  out.emplace_back(action::Emit{event});
}

}  // namespace hf::ha
