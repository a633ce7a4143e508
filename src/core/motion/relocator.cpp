#include "core/motion/relocator.hpp"

#include <fmt/format.h>

namespace hf::motion {
namespace {
using ha::Agent;
using ha::AgentContext;
using ha::KeptBug;
using ha::Outcome;
using record::RelocationRecord;
using Phase = RelocationRecord::Phase;
namespace key = record::key;
namespace event = ha::event;
namespace action = ha::action;

constexpr Duration kSilenceMax = 60s;  // of a copy, which reports every few seconds
constexpr Duration kHeldMax = 2s;      // the guest's disk requests wait; nothing was sent yet
constexpr Duration kRetry = 2s;
constexpr Duration kPercentEvery = 2s;

record::EventRecord moved_event(const record::TaskRecord& task, const RelocationRecord& relocation) {
  record::EventRecord event;
  event.severity = "info";
  event.kind = "vm.relocated";
  event.vm = task.vm;
  event.subject = task.vm_name;
  event.text = fmt::format("{} of VM {} moved to datastore {} in {:.1f} s.",
                           relocation.what.disk.empty() ? "The disks" : "Disk " + relocation.what.disk, task.vm_name,
                           relocation.what.datastore, static_cast<double>(task.relocation.took_ms) / 1e3);
  return event;
}
}  // namespace

void Relocator::reconcile(const AgentContext& context, const Agent& agent, Actions& out) {
  if (!context.view.synced || !agent.adopted()) return;
  if (!looked_) {
    looked_ = true;
    for (const auto& [vm, stored] : context.view.relocations) not_ours_.insert(stored.record.id);
  }
  for (const auto& [vm, stored] : context.view.relocations) {
    if (stored.record.phase == Phase::copying && stored.record.host == self_) copy(stored, context, agent, out);
    // safety: only under a record that says how it ended; the view goes forward only.
    const bool ends = stored.record.phase != Phase::copying && cleaner(stored.record, context.view) == self_;
    if (ends && !still_open(stored.record, agent)) clean(stored, context, out);
  }
  forget_others(context, out);
  abandonings_.reconcile(context.view, context.now, out);
}

// What a motion has left: the QEMU that has the files open is gone first, and what makes them.
bool Relocator::still_open(const RelocationRecord& relocation, const Agent& agent) const {
  if (relocation.cleaner.empty()) return false;
  // Another motion may have brought the VM under the epoch that this one would have.
  const bool at_source = relocation.phase == Phase::committed;
  return at_source ? agent.has_process_of(relocation.vm, relocation.epoch)
                   : agent.has_process_for(relocation.vm, relocation.id);
}

void Relocator::copy(const Stored& stored, const AgentContext& context, const Agent& agent, Actions& out) {
  const RelocationRecord& relocation = stored.record;
  auto found = movings_.find(relocation.vm);
  if (found == movings_.end() || found->second.relocation.id != relocation.id) return begin(stored, context, out);
  Moving& moving = found->second;
  if (moving.state == State::given_up) return abandonings_.want(relocation.vm, relocation.id, Error{});
  // safety: what was sent is settled by the record alone, or by the answer that it was not done.
  if (moving.state == State::committing) return;
  if (!can_commit(relocation, context.view)) {
    const char* why = "The VM was restarted, stopped or taken over while its disks were to move.";
    return let_go(moving, Error{Code::failed, why}, out);
  }
  if (relocation.live && !agent.runs(relocation.vm, relocation.epoch)) {
    return let_go(moving, Error{Code::failed, "Its QEMU on host " + self_.text + " ended."}, out);
  }
  const bool held = moving.state == State::held;
  if (context.now - moving.since > (held ? kHeldMax : kSilenceMax)) {
    const char* why = held ? "could not commit in time" : "made no progress for a minute";
    return let_go(moving, Error{Code::timed_out, "Host " + self_.text + " " + why + "."}, out);
  }
  const bool ready = held || (bug_ == KeptBug::commit_before_held && moving.percent >= 50);
  if (ready && !agent.busy(relocation.vm) && context.session.active()) commit(moving, stored, context, out);
}

void Relocator::begin(const Stored& stored, const AgentContext& context, Actions& out) {
  const RelocationRecord& relocation = stored.record;
  if (not_ours_.count(relocation.id) != 0) {
    // safety: a commit of an earlier life may be on its way: QEMU is left as it is until the record tells.
    return abandonings_.want(relocation.vm, relocation.id,
                             Error{Code::failed, "The daemon of host " + self_.text + " was restarted."});
  }
  if (!can_commit(relocation, context.view) || !context.session.active()) return;
  not_ours_.insert(relocation.id);  // it is copied once only
  Moving moving;
  moving.relocation = relocation;
  moving.since = context.now;
  movings_[relocation.vm] = moving;
  out.emplace_back(action::Copy{context.view.vms.at(relocation.vm).record, relocation});
}

void Relocator::commit(Moving& moving, const Stored& stored, const AgentContext& context, Actions& out) {
  const VmId& vm = stored.record.vm;
  const auto& before = context.view.vms.at(vm);
  const auto* owner = context.view.owner(vm);
  auto after = vm::relocated(before.record.spec, stored.record.what);
  auto task = context.view.tasks.find(stored.record.id);
  if (!after.ok() || task == context.view.tasks.end()) {
    return let_go(moving, Error{Code::conflict, "The VM's spec has changed meanwhile."}, out);
  }
  TypedTxn txn;
  // safety: nobody has started it anew or taken it over, and nobody can any more without these images.
  txn.conditions.push_back({key::kOwners + vm.text, owner == nullptr ? 0 : owner->version});
  txn.conditions.push_back({key::kVms + vm.text, before.version});
  // safety: whoever wants the relocation to be over changes this record first.
  txn.conditions.push_back({key::kRelocations + vm.text, stored.version});
  // safety: what an earlier life of this daemon sent cannot land any more once this one has published.
  txn.conditions.push_back(context.session.alive_condition());
  record::VmRecord changed = before.record;
  changed.active_task = TaskId();
  // safety: from now on the new images are the VM's. Old and new ones are equal until this is settled.
  changed.spec = std::move(*after);
  RelocationRecord committed = stored.record;
  committed.phase = Phase::committed;
  record::TaskRecord ended = task->second.record;
  ended.state = record::TaskState::succeeded;
  ended.progress = 100;
  ended.relocation = moving.report;
  txn.events.push_back(moved_event(ended, committed));
  txn.writes.push_back({key::kVms + vm.text, changed, 0});
  txn.writes.push_back({key::kRelocations + vm.text, committed, 0});
  txn.writes.push_back({key::kTasks + ended.id.text, ended, 0});
  moving.state = State::committing;
  moving.op = make_op_();
  out.emplace_back(action::Commit{moving.op, std::move(txn)});
}

void Relocator::let_go(Moving& moving, Error why, Actions& out) {
  moving.state = State::given_up;
  abandonings_.want(moving.relocation.vm, moving.relocation.id, std::move(why));
  // safety: no commit was sent, or it was not done; in this state none is sent.
  out.emplace_back(action::SettleCopy{moving.relocation, action::Keep::old_images});
}

bool Relocator::on(const event::TxnDone& done, Instant now, Actions& out) {
  if (abandonings_.on(done, now)) return true;
  for (auto& [vm, cleaning] : cleanings_) {
    if (cleaning.op != done.op || done.op == 0) continue;
    cleaning.op = 0;
    cleaning.next_at = now + kRetry;
    return true;
  }
  for (auto& [vm, moving] : movings_) {
    if (moving.op != done.op || done.op == 0) continue;
    moving.op = 0;
    const Error why{Code::failed, "The commit was not done: the store was lost, or it was called off."};
    if (done.outcome == Outcome::refused || done.outcome == Outcome::unavailable ||
        (done.outcome == Outcome::unknown && bug_ == KeptBug::release_when_unknown)) {
      let_go(moving, why, out);
    } else if (done.outcome == Outcome::unknown) {
      // safety: the record tells; this makes that it does so soon, one way or the other.
      abandonings_.want(vm, moving.relocation.id, why);
    }
    return true;
  }
  return false;
}

void Relocator::clean(const Stored& stored, const AgentContext& context, Actions& out) {
  const RelocationRecord& relocation = stored.record;
  Cleaning& cleaning = cleanings_[relocation.vm];
  if (cleaning.id != relocation.id) {
    cleaning = Cleaning{};
    cleaning.id = relocation.id;
  }
  if (cleaning.settling || cleaning.op != 0 || context.now < cleaning.next_at) return;
  if (cleaning.settled) return erase(cleaning, stored, context, out);
  cleaning.settling = true;
  const bool committed = relocation.phase == Phase::committed;
  out.emplace_back(
      action::SettleCopy{relocation, committed ? action::Keep::new_images : action::Keep::old_images});
}

void Relocator::erase(Cleaning& cleaning, const Stored& stored, const AgentContext& context, Actions& out) {
  TypedTxn txn;
  txn.conditions.push_back({key::kRelocations + stored.record.vm.text, stored.version});
  txn.writes.push_back({key::kRelocations + stored.record.vm.text, {}, 0});
  auto task = context.view.tasks.find(cleaning.id);
  if (task != context.view.tasks.end() && cleaning.held_us > 0 && stored.record.phase == Phase::committed) {
    record::TaskRecord told = task->second.record;
    told.relocation.held_us = cleaning.held_us;
    txn.conditions.push_back({key::kTasks + cleaning.id.text, task->second.version});
    txn.writes.push_back({key::kTasks + cleaning.id.text, told, 0});
  }
  cleaning.op = make_op_();
  out.emplace_back(action::Commit{cleaning.op, std::move(txn)});
}

void Relocator::forget_others(const AgentContext& context, Actions& out) {
  for (auto it = movings_.begin(); it != movings_.end();) {
    const auto* stored = context.view.relocation(it->first);
    const bool same = stored != nullptr && stored->record.id == it->second.relocation.id;
    const bool mine = same && (stored->record.phase == Phase::copying ||
                               cleaner(stored->record, context.view) == self_);
    if (!mine && it->second.state != State::given_up) {
      out.emplace_back(action::SettleCopy{it->second.relocation, action::Keep::none});
    }
    const bool over = !mine || stored->record.phase != Phase::copying;
    it = over ? movings_.erase(it) : std::next(it);
  }
  for (auto it = cleanings_.begin(); it != cleanings_.end();) {
    const auto* stored = context.view.relocation(it->first);
    const bool stands = stored != nullptr && stored->record.id == it->second.id;
    it = stands ? std::next(it) : cleanings_.erase(it);
  }
}

void Relocator::on(const event::CopyProgress& progress, const AgentContext& context, Actions& out) {
  auto found = movings_.find(progress.vm);
  if (found == movings_.end() || found->second.relocation.id != progress.id) return;
  Moving& moving = found->second;
  if (moving.state != State::copying) return;
  moving.since = context.now;
  auto task = context.view.tasks.find(progress.id);
  const bool due = progress.percent != moving.percent && context.now - moving.percent_at >= kPercentEvery;
  if (!due || task == context.view.tasks.end()) return;
  moving.percent = progress.percent;
  moving.percent_at = context.now;
  TypedTxn txn;
  record::TaskRecord shown = task->second.record;
  shown.progress = progress.percent;
  shown.state = record::TaskState::running;
  txn.conditions.push_back({key::kTasks + progress.id.text, task->second.version});
  txn.writes.push_back({key::kTasks + progress.id.text, shown, 0});
  out.emplace_back(action::Commit{make_op_(), std::move(txn)});
}

void Relocator::on(const event::CopyHeld& held, Instant now) {
  auto found = movings_.find(held.vm);
  if (found == movings_.end() || found->second.relocation.id != held.id) return;
  if (found->second.state != State::copying) return;
  found->second.state = State::held;
  found->second.since = now;
  found->second.report = held.report;
}

void Relocator::on(const event::CopyFailed& failed, Actions& out) {
  auto found = movings_.find(failed.vm);
  if (found == movings_.end() || found->second.relocation.id != failed.id) return;
  // safety: a commit that was sent is settled by the record alone.
  if (found->second.state == State::committing || found->second.state == State::given_up) return;
  let_go(found->second, failed.error, out);
}

void Relocator::on(const event::CopySettled& settled, Instant now) {
  auto found = cleanings_.find(settled.vm);
  if (found == cleanings_.end() || found->second.id != settled.id) return;
  found->second.settling = false;
  found->second.settled = settled.ok;
  found->second.held_us = std::max(found->second.held_us, settled.held_us);
  found->second.next_at = settled.ok ? Instant{} : now + kRetry;
}

}  // namespace hf::motion
