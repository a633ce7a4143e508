#include "core/motion/source.hpp"

#include <fmt/format.h>

namespace hf::motion {
namespace {
using ha::Agent;
using ha::AgentContext;
using ha::KeptBug;
using ha::Outcome;
using record::MotionRecord;
namespace key = record::key;
namespace event = ha::event;
namespace action = ha::action;

constexpr Duration kSilenceMax = 60s;   // of a motion process; it has a shorter patience with its peer
constexpr Duration kAskedMax = 2s;      // the guest stands still; nothing was sent yet
constexpr Duration kReadRetry = 250ms;
constexpr Duration kPercentEvery = 2s;
constexpr Duration kReportFor = 60s;

record::EventRecord moved_event(const record::TaskRecord& task) {
  record::EventRecord event;
  event.severity = "info";
  event.kind = "vm.moved";
  event.vm = task.vm;
  event.subject = task.vm_name;
  event.text = fmt::format("VM {} moved from {} to {} in {:.1f} s and stood still for {:.1f} ms at the end.",
                           task.vm_name, task.report.from.text, task.report.to.text,
                           static_cast<double>(task.report.took_ms) / 1e3,
                           static_cast<double>(task.report.stop_us) / 1e3);
  return event;
}
}  // namespace

Source::Leavings::iterator Source::with_op(OpId op) {
  auto found = leavings_.begin();
  while (found != leavings_.end() && (op == 0 || found->second.op != op)) ++found;
  return found;
}

void Source::reconcile(const AgentContext& context, Agent& agent, Actions& out) {
  if (!context.view.synced) return;
  if (!looked_) {
    looked_ = true;
    for (const auto& [vm, motion] : context.view.motions) {
      if (motion.record.from == self_ && motion.record.phase != MotionRecord::Phase::preparing) {
        not_ours_.insert(motion.record.id);
      }
    }
  }
  for (auto it = leavings_.begin(); it != leavings_.end();) {
    auto current = it++;
    const auto* owner = context.view.owner(current->first);
    // The view may know it before the swap's answer comes, and the agent then ends what runs here no more.
    if (owner != nullptr && is_done(current->second, owner->record)) {
      committed(current, owner->version, agent, out);
      continue;
    }
    if (step(current->first, current->second, context, agent, out)) continue;
    give_up(current, std::nullopt, agent);
  }
  begin_new(context, agent, out);
  tell_reports(context, out);
  endings_.reconcile(context.view, context.now, out);
}

void Source::begin_new(const AgentContext& context, Agent& agent, Actions& out) {
  for (const auto& [vm, stored] : context.view.motions) {
    const MotionRecord& motion = stored.record;
    if (motion.from != self_ || motion.phase != MotionRecord::Phase::ready || leavings_.count(vm) != 0) continue;
    if (standing(motion, context.view) != Standing::pending) continue;
    if (not_ours_.count(motion.id) != 0) {
      endings_.want(vm, motion.id, Error{Code::failed, "The daemon of host " + self_.text + " was restarted."});
      continue;
    }
    if (!agent.may_leave(vm, motion.epoch)) continue;
    not_ours_.insert(motion.id);  // it is sent once only
    Leaving leaving;
    leaving.id = motion.id;
    leaving.epoch = motion.epoch;
    leaving.since = context.now;
    leavings_[vm] = leaving;
    out.emplace_back(action::Send{context.view.vms.at(vm).record, motion});
  }
}

bool Source::step(const VmId& vm, Leaving& leaving, const AgentContext& context, Agent& agent, Actions& out) {
  if (leaving.state == State::uncertain && leaving.op == 0 && context.now >= leaving.next_at) {
    read_owner(vm, leaving, out);
  }
  // safety: what was sent is settled by its own answers alone.
  if (leaving.state == State::committing || leaving.state == State::uncertain) return true;
  const auto* motion = context.view.motion(vm);
  const bool stands = motion != nullptr && motion->record.id == leaving.id &&
                      standing(motion->record, context.view) == Standing::pending;
  if (!stands) return false;
  if (!agent.has_process(vm)) {
    endings_.want(vm, leaving.id, Error{Code::failed, "Its QEMU on host " + self_.text + " ended."});
    return false;
  }
  const Duration patience = leaving.state == State::asked ? kAskedMax : kSilenceMax;
  if (context.now - leaving.since > patience) {
    const char* why = leaving.state == State::asked ? "could not commit in time" : "made no progress for a minute";
    endings_.want(vm, leaving.id, Error{Code::timed_out, "The source " + self_.text + " " + why + "."});
    return false;
  }
  if (leaving.state != State::asked || agent.busy(vm)) return true;
  auto txn = commit(vm, leaving, context);
  if (!txn) return true;
  leaving.state = State::committing;
  leaving.insisted = context.view.owner(vm)->version;
  leaving.op = make_op_();
  out.emplace_back(action::Commit{leaving.op, std::move(*txn)});
  return true;
}

std::optional<TypedTxn> Source::commit(const VmId& vm, const Leaving& leaving, const AgentContext& context) const {
  const auto* motion = context.view.motion(vm);
  const auto* owner = context.view.owner(vm);
  auto session = context.view.sessions.find(motion->record.to);
  const bool lives = session != context.view.sessions.end() &&
                     session->second.record.session == motion->record.session_to;
  const bool insists = bug_ != KeptBug::commit_without_session;
  if (!context.session.active() || (!lives && insists) || motion->record.id != leaving.id) return std::nullopt;
  TypedTxn txn;
  txn.conditions.push_back({key::kOwners + vm.text, owner->version});
  // safety: whoever wants the motion to be over erases this record first.
  txn.conditions.push_back({key::kMotions + vm.text, motion->version});
  // safety: what an earlier life of this daemon sent cannot land any more once this one has published.
  txn.conditions.push_back(context.session.alive_condition());
  // safety: the daemon that said `ready` still lives, and its store session: the guest's memory has somewhere to run.
  if (insists) txn.conditions.push_back({key::kSessions + motion->record.to.text, session->second.version});
  // safety: gives the right to run to the destination. The guest stands still here until this is settled.
  txn.writes.push_back({key::kOwners + vm.text, committed_owner(motion->record, owner->record), 0});
  MotionRecord committed = motion->record;
  committed.phase = MotionRecord::Phase::committed;
  txn.writes.push_back({key::kMotions + vm.text, committed, 0});
  if (!takes_disks(committed) || bug_ == KeptBug::motion_leaves_spec) return txn;
  const auto& before = context.view.vms.at(vm);
  auto after = vm::relocated(before.record.spec, committed.disks);
  if (!after.ok()) return std::nullopt;  // patience ends
  record::VmRecord changed = before.record;
  // safety: from now on the new images are the VM's. Both are equal, and nothing writes either before this is settled.
  changed.spec = std::move(*after);
  txn.conditions.push_back({key::kVms + vm.text, before.version});
  txn.writes.push_back({key::kVms + vm.text, changed, 0});
  txn.conditions.push_back({key::kRelocations + vm.text, 0});
  txn.writes.push_back({key::kRelocations + vm.text,
                        remains(committed, before.record.spec, record::RelocationRecord::Phase::committed), 0});
  return txn;
}

void Source::read_owner(const VmId& vm, Leaving& leaving, Actions& out) {
  leaving.op = make_op_();
  leaving.reading = true;
  out.emplace_back(action::Read{leaving.op, key::kOwners + vm.text});
}

void Source::fence(const VmId& vm, Leaving& leaving, const record::OwnerRecord& unchanged, Actions& out) {
  TypedTxn txn;
  txn.conditions.push_back({key::kOwners + vm.text, leaving.insisted});
  // safety: changes nothing but the version that the commit insists on: it can never be done after this.
  txn.writes.push_back({key::kOwners + vm.text, unchanged, 0});
  leaving.op = make_op_();
  out.emplace_back(action::Commit{leaving.op, std::move(txn)});
}

void Source::on(const event::MotionFinished& finished, Instant now) {
  reports_[finished.id] = Report{finished.report, 0, now, now + kReportFor};
}

void Source::tell_reports(const AgentContext& context, Actions& out) {
  for (auto it = reports_.begin(); it != reports_.end();) {
    auto& [id, report] = *it;
    auto task = context.view.tasks.find(id);
    const bool told = task != context.view.tasks.end() && task->second.record.report.rounds > 0;
    if (told || context.now >= report.until) {
      it = reports_.erase(it);
      continue;
    }
    ++it;
    const bool due = task != context.view.tasks.end() && report.op == 0 && context.now >= report.next_at &&
                     task->second.record.state == record::TaskState::succeeded;
    if (!due) continue;
    TypedTxn txn;
    record::TaskRecord ended = task->second.record;
    const std::uint64_t resume_us = ended.report.resume_us;
    ended.report = report.text;
    ended.report.resume_us = resume_us;
    ended.report.stop_us += resume_us;
    txn.conditions.push_back({key::kTasks + id.text, task->second.version});
    txn.writes.push_back({key::kTasks + id.text, ended, 0});
    txn.events.push_back(moved_event(ended));
    report.op = make_op_();
    out.emplace_back(action::Commit{report.op, std::move(txn)});
  }
}

bool Source::on(const event::TxnDone& done, const AgentContext& context, Agent& agent, Actions& out) {
  if (endings_.on(done, context.now)) return true;
  for (auto& [id, report] : reports_) {
    if (report.op != done.op) continue;
    report.op = 0;
    report.next_at = context.now + kReadRetry;
    return true;
  }
  auto found = with_op(done.op);
  if (found == leavings_.end()) return false;
  auto& [vm, leaving] = *found;
  leaving.op = 0;
  const bool by_fence = leaving.state == State::uncertain;
  const bool lax = bug_ == KeptBug::resume_when_commit_unknown && done.outcome == Outcome::unknown;
  if (!by_fence && done.outcome == Outcome::done) {
    committed(found, done.version, agent, out);
  } else if (by_fence ? done.outcome == Outcome::done : lax || done.outcome != Outcome::unknown) {
    // safety: certainly not committed, now and for ever.
    give_up(found,
            Error{Code::failed, "The commit was not done: store or destination were lost, or it was called off."},
            agent);
  } else {
    leaving.state = State::uncertain;
    read_owner(vm, leaving, out);
  }
  return true;
}

bool Source::on(const event::KeyRead& read, const AgentContext& context, Agent& agent, Actions& out) {
  auto found = with_op(read.op);
  if (found == leavings_.end() || !found->second.reading) return false;
  auto& [vm, leaving] = *found;
  leaving.op = 0;
  leaving.reading = false;
  if (!read.ok) {
    leaving.next_at = context.now + kReadRetry;
    return true;
  }
  const auto* owner = std::get_if<record::OwnerRecord>(&read.state.value);
  if (owner != nullptr && is_done(leaving, *owner)) {
    // The version is the commit's only as long as the destination has not claimed again.
    committed(found, read.state.version, agent, out);
  } else if (owner == nullptr || read.state.version != leaving.insisted || bug_ == KeptBug::read_settles_commit) {
    // safety: the version that the commit insists on is gone, and it was not the commit that changed it.
    give_up(found, Error{Code::failed, "The commit was not done."}, agent);
  } else {
    leaving.next_at = context.now + kReadRetry;
    fence(vm, leaving, *owner, out);
  }
  return true;
}

bool Source::is_done(const Leaving& leaving, const record::OwnerRecord& owner) {
  return owner.motion == leaving.id && owner.epoch >= leaving.epoch.next();
}

void Source::give_up(Leavings::iterator leaving, std::optional<Error> why, Agent& agent) {
  if (why) endings_.want(leaving->first, leaving->second.id, std::move(*why));
  agent.go_on(leaving->first, leaving->second.epoch);
  leavings_.erase(leaving);
}

void Source::committed(Leavings::iterator leaving, ha::Version version, Agent& agent, Actions& out) {
  out.emplace_back(action::CommittedMotion{leaving->first, leaving->second.id, version});
  agent.let_go(leaving->first);
  leavings_.erase(leaving);
}

void Source::on(const event::MotionProgress& progress, const AgentContext& context, Actions& out) {
  auto found = leavings_.find(progress.vm);
  if (found == leavings_.end() || found->second.id != progress.id || found->second.state != State::sending) return;
  Leaving& leaving = found->second;
  leaving.since = context.now;
  auto task = context.view.tasks.find(progress.id);
  const bool due = progress.percent != leaving.percent && context.now - leaving.percent_at >= kPercentEvery;
  if (!due || task == context.view.tasks.end()) return;
  leaving.percent = progress.percent;
  leaving.percent_at = context.now;
  TypedTxn txn;
  record::TaskRecord shown = task->second.record;
  shown.progress = progress.percent;
  txn.conditions.push_back({key::kTasks + progress.id.text, task->second.version});
  txn.writes.push_back({key::kTasks + progress.id.text, shown, 0});
  out.emplace_back(action::Commit{make_op_(), std::move(txn)});
}

void Source::on(const event::MotionReady& ready, const AgentContext& context, Agent& agent) {
  auto found = leavings_.find(ready.vm);
  if (found == leavings_.end() || found->second.id != ready.id || found->second.state != State::sending) return;
  found->second.state = State::asked;
  found->second.since = context.now;
  agent.hold(ready.vm);
}

void Source::on(const event::MotionFailed& failed, Agent& agent) {
  auto found = leavings_.find(failed.vm);
  if (found == leavings_.end() || found->second.id != failed.id) return;
  // safety: a commit that was sent is settled by its own answers alone.
  if (found->second.state == State::committing || found->second.state == State::uncertain) return;
  give_up(found, failed.error, agent);
}

}  // namespace hf::motion
