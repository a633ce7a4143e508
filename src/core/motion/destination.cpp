#include "core/motion/destination.hpp"

namespace hf::motion {
namespace {
using ha::Agent;
using ha::AgentContext;
using ha::KeptBug;
using record::MotionRecord;
namespace key = record::key;
namespace event = ha::event;
namespace action = ha::action;

constexpr Duration kRetry = 250ms;
constexpr Duration kRecordRetry = 1s;
}  // namespace

void Destination::reconcile(const AgentContext& context, Agent& agent, Actions& out) {
  if (!context.view.synced || !agent.adopted()) return;
  for (const auto& [vm, motion] : context.view.motions) {
    if (motion.record.to == self_) step(motion.record, motion.version, context, agent, out);
  }
  end_unneeded(context, agent, out);
  endings_.reconcile(context.view, context.now, out);
}

void Destination::step(const MotionRecord& motion, ha::Version version, const AgentContext& context, Agent& agent,
                       Actions& out) {
  const Standing stands = standing(motion, context.view);
  if (stands == Standing::arrived) return settle_down(motion, version, context, agent, out);
  if (stands == Standing::over || endings_.wants(motion.id)) return;
  const bool ready = motion.phase == MotionRecord::Phase::ready;
  auto found = comings_.find(motion.vm);
  if (found != comings_.end() && found->second.id != motion.id && !agent.has_any_process(motion.vm)) {
    comings_.erase(found);
    found = comings_.end();
  }
  if (found == comings_.end()) {
    if (!ready) return prepare(motion, context, agent, out);
    endings_.want(motion.vm, motion.id, Error{Code::failed, "The daemon of host " + self_.text + " was restarted."});
    return;
  }
  Coming& coming = found->second;
  if (coming.id != motion.id || !coming.prepared) return;
  if (!ready) return say_ready(coming, motion, version, context, out);
  if (context.session.active() && motion.session_to != context.session.id()) {
    endings_.want(motion.vm, motion.id, Error{Code::failed, "Host " + self_.text + " lost its contact to the store."});
  }
}

void Destination::prepare(const MotionRecord& motion, const AgentContext& context, Agent& agent, Actions& out) {
  // What is left of an earlier stay, or of an earlier motion, is gone first.
  auto vm = context.view.vms.find(motion.vm);
  if (vm == context.view.vms.end() || !agent.may_begin(context) || agent.has_any_process(motion.vm)) return;
  record::VmRecord coming_vm = vm->second.record;
  if (takes_disks(motion)) {
    auto after = vm::relocated(coming_vm.spec, motion.disks);
    if (!after.ok()) return endings_.want(motion.vm, motion.id, after.error());
    coming_vm.spec = std::move(*after);
  }
  Coming coming;
  coming.id = motion.id;
  coming.epoch = motion.epoch.next();
  comings_[motion.vm] = coming;
  agent.prepare(motion.vm, coming.epoch, motion.id);
  // safety: the guest finds the processor that it was started with, whatever the spec and the baseline say by now.
  record::OwnerRecord owner = context.view.owner(motion.vm)->record;
  if (bug_ == KeptBug::motion_takes_new_cpu) owner.cpu.clear();
  out.emplace_back(action::Prepare{coming_vm, motion, coming.epoch, owner});
}

void Destination::say_ready(Coming& coming, MotionRecord motion, ha::Version version, const AgentContext& context,
                            Actions& out) {
  if (coming.op != 0 || context.now < coming.next_at) return;
  // Also checked by the guard, with its own clock, once the VM is to run.
  if (!context.session.active() || context.guard.lapsed) return;
  motion.phase = MotionRecord::Phase::ready;
  motion.endpoint = coming.endpoint;
  motion.token = coming.token;
  motion.room_bytes = coming.room_bytes;
  // safety: both were so before the swap is sent; see rule 4 in motion.hpp.
  motion.session_to = context.session.id();
  motion.generation_to = context.guard.generation;
  TypedTxn txn;
  txn.conditions.push_back({key::kMotions + motion.vm.text, version});
  txn.conditions.push_back(context.session.alive_condition());
  txn.writes.push_back({key::kMotions + motion.vm.text, motion, 0});
  coming.op = make_op_();
  out.emplace_back(action::Commit{coming.op, std::move(txn)});
}

void Destination::settle_down(const MotionRecord& motion, ha::Version version, const AgentContext& context,
                              Agent& agent, Actions& out) {
  const Epoch epoch = motion.epoch.next();
  if (!agent.runs(motion.vm, epoch)) return;
  comings_.erase(motion.vm);
  Landed& landed = landed_[motion.vm];
  if (landed.epoch != epoch) landed = Landed{epoch, false, false, 0, {}};
  if (landed.recording || landed.op != 0 || context.now < landed.next_at) return;
  const auto& vm = context.view.vms.find(motion.vm);
  if (vm == context.view.vms.end()) return;
  if (!landed.recorded) {
    landed.recording = true;
    out.emplace_back(action::RecordOwner{vm->second.record, context.view.owner(motion.vm)->record});
    return;
  }
  if (vm->second.record.active_task == motion.id) return;  // the agent ends the task first
  TypedTxn txn;
  txn.conditions.push_back({key::kMotions + motion.vm.text, version});
  txn.writes.push_back({key::kMotions + motion.vm.text, {}, 0});
  landed.op = make_op_();
  out.emplace_back(action::Commit{landed.op, std::move(txn)});
}

bool Destination::needed(const VmId& vm, Epoch epoch, const View& view) const {
  auto coming = comings_.find(vm);
  const auto* motion = view.motion(vm);
  const bool to_us = motion != nullptr && motion->record.to == self_ && motion->record.epoch.next() == epoch;
  if (!to_us) return false;
  const Standing stands = standing(motion->record, view);
  const bool ours = coming != comings_.end() && coming->second.id == motion->record.id;
  if (stands == Standing::pending) {
    // One that is `ready` and not of this life may yet arrive, until its record is erased.
    return ours || motion->record.phase == MotionRecord::Phase::ready;
  }
  return stands == Standing::arrived && (ours || bug_ != KeptBug::discard_without_owner);
}

void Destination::end_unneeded(const AgentContext& context, Agent& agent, Actions& out) {
  for (const auto& [vm, epoch] : agent.incoming()) {
    const auto* owner = context.view.owner(vm);
    // safety: arrived, though the record of the motion is gone already.
    const bool arrived = owner != nullptr && owner->record.host == self_ && owner->record.epoch == epoch &&
                         owner->record.phase == record::OwnerRecord::Phase::claimed && !owner->record.motion.empty() &&
                         bug_ != KeptBug::discard_without_owner;
    if (arrived || needed(vm, epoch, context.view)) continue;
    comings_.erase(vm);
    agent.kill(vm, "the motion that it waited for is over", out);
  }
  for (auto it = landed_.begin(); it != landed_.end();) {
    const auto* motion = context.view.motion(it->first);
    const bool stays = motion != nullptr && motion->record.epoch.next() == it->second.epoch;
    it = stays ? std::next(it) : landed_.erase(it);
  }
}

void Destination::on(const event::Prepared& prepared, Agent& agent) {
  auto found = comings_.find(prepared.vm);
  if (found == comings_.end() || found->second.id != prepared.id || found->second.prepared) return;
  if (!prepared.ok) {
    agent.unprepared(prepared.vm, found->second.epoch);
    endings_.want(prepared.vm, prepared.id, prepared.error);
    comings_.erase(found);
    return;
  }
  agent.prepared(prepared.vm, found->second.epoch, prepared.memory_tracker);
  found->second.prepared = true;
  found->second.endpoint = prepared.endpoint;
  found->second.token = prepared.token;
  found->second.room_bytes = prepared.room_bytes;
}

void Destination::on(const event::MotionFailed& failed) {
  auto found = comings_.find(failed.vm);
  if (found == comings_.end() || found->second.id != failed.id) return;
  endings_.want(failed.vm, failed.id, failed.error);
}

void Destination::on(const event::Exited& exited) {
  auto found = comings_.find(exited.vm);
  if (found == comings_.end() || found->second.id != exited.motion) return;
  endings_.want(exited.vm, found->second.id, Error{Code::failed, "Its QEMU on host " + self_.text + " ended."});
  comings_.erase(found);
}

void Destination::on(const event::OwnerRecorded& recorded, Instant now) {
  auto found = landed_.find(recorded.vm);
  if (found == landed_.end() || found->second.epoch != recorded.epoch) return;
  found->second.recording = false;
  found->second.recorded = recorded.ok;
  if (!recorded.ok) found->second.next_at = now + kRecordRetry;
}

bool Destination::on(const event::TxnDone& done, Instant now) {
  if (endings_.on(done, now)) return true;
  const auto ours = [&](auto& entries) {
    for (auto& [vm, entry] : entries) {
      if (entry.op != done.op) continue;
      // Whatever came of it: the view tells, and each swap insists on what it saw.
      entry.op = 0;
      entry.next_at = now + kRetry;
      return true;
    }
    return false;
  };
  return ours(comings_) || ours(landed_);
}

}  // namespace hf::motion
