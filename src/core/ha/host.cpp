#include "core/ha/host.hpp"

#include <fmt/format.h>

#include "base/overloaded.hpp"

namespace hf::ha {

HostCore::HostCore(HostId self, Timing timing, std::uint64_t seed, KeptBug bug)
    : self_(self),
      rng_(seed),
      session_(
          self, timing, [this] { return next_op_++; },
          [this] { return SessionId(fmt::format("{:016x}", rng_.next())); }, bug),
      observer_(timing, bug),
      agent_(
          self, timing, [this] { return next_op_++; }, bug),
      source_(
          self, [this] { return next_op_++; }, bug),
      destination_(
          self, [this] { return next_op_++; }, bug),
      relocator_(
          self, [this] { return next_op_++; }, bug),
      leader_(
          self, timing, [this] { return next_op_++; },
          [this] { return TaskId(fmt::format("t-{:012x}", rng_.next() >> 16U)); }, bug) {}

bool HostCore::is_leader() const {
  return leader_.is_leader(leader_context(Instant{}));
}

Actions HostCore::step(const Event& event, Instant now) {
  Actions out;
  take(event, now, out);
  observer_.look_at(view_, now);
  const bool about_others =
      std::holds_alternative<event::SlotRead>(event) || std::holds_alternative<event::HeartbeatHeard>(event);
  if (!about_others) {
    source_.reconcile(agent_context(now), agent_, out);
    destination_.reconcile(agent_context(now), agent_, out);
    relocator_.reconcile(agent_context(now), agent_, out);
    agent_.reconcile(agent_context(now), out);
  }
  remember(out);
  return out;
}

void HostCore::remember(const Actions& actions) {
  for (const auto& action : actions) {
    if (const auto* commit = std::get_if<action::Commit>(&action)) in_flight_[commit->op] = commit->txn.writes;
  }
}

void HostCore::take(const Event& event, Instant now, Actions& out) {
  std::visit(
      overloaded{
          [&](const event::Tick&) {
            session_.tick(view_, now, out);
            leader_.tick(leader_context(now), out);
          },
          [&](const event::StoreReset& e) { view_.reset(e.all, e.as_of); },
          [&](const event::StoreChanged& e) { view_.apply(e.changes, e.as_of); },
          [&](const event::TxnDone& e) { settle(e, now, out); },
          [&](const event::KeyRead& e) {
            if (e.ok) view_.apply_read(e.state, e.as_of);
            if (!source_.on(e, agent_context(now), agent_, out)) agent_.on(e, agent_context(now), out);
          },
          [&](const event::LeaseGranted& e) { session_.on(e, view_, now, out); },
          [&](const event::LeaseKept& e) { session_.on(e, now, out); },
          [&](const event::SlotRead& e) { observer_.on(e); },
          [&](const event::HeartbeatHeard& e) { observer_.on(e, now); },
          [&](const event::GuardReport& e) {
            guard_ = e;
            agent_.on(e, agent_context(now), out);
          },
          [&](const event::Adopted& e) { agent_.on(e); },
          [&](const event::Launched& e) { agent_.on(e); },
          [&](const event::Exited& e) {
            destination_.on(e);
            agent_.on(e, agent_context(now), out);
          },
          [&](const event::Paused& e) { agent_.on(e, now); },
          [&](const event::WentOn& e) { agent_.on(e, now); },
          [&](const auto&) { take_motion(event, now, out); },
      },
      event);
}

void HostCore::settle(const event::TxnDone& done, Instant now, Actions& out) {
  auto writes = in_flight_.extract(done.op);
  if (!writes.empty() && done.outcome == Outcome::done) {
    for (auto& write : writes.mapped()) view_.apply_own({write.key, done.version, write.value});
  }
  if (session_.on(done, now, out) || leader_.on(done, leader_context(now)) || relocator_.on(done, now, out)) return;
  if (source_.on(done, agent_context(now), agent_, out) || destination_.on(done, now)) return;
  agent_.on(done, agent_context(now), out);
}

void HostCore::take_motion(const Event& event, Instant now, Actions& out) {
  if (const auto* prepared = std::get_if<event::Prepared>(&event)) {
    destination_.on(*prepared, agent_);
  } else if (const auto* progress = std::get_if<event::MotionProgress>(&event)) {
    source_.on(*progress, agent_context(now), out);
  } else if (const auto* ready = std::get_if<event::MotionReady>(&event)) {
    source_.on(*ready, agent_context(now), agent_);
  } else if (const auto* failed = std::get_if<event::MotionFailed>(&event)) {
    source_.on(*failed, agent_);
    destination_.on(*failed);
  } else if (const auto* finished = std::get_if<event::MotionFinished>(&event)) {
    source_.on(*finished, now);
  } else if (const auto* aborted = std::get_if<event::MotionAborted>(&event)) {
    agent_.on(*aborted, now);
  } else if (const auto* arrived = std::get_if<event::Arrived>(&event)) {
    for (const auto& told : motion::told_by_source(*arrived, self_, view_)) view_.apply_own(told);
  } else if (const auto* activated = std::get_if<event::Activated>(&event)) {
    agent_.on(*activated, now);
  } else if (const auto* recorded = std::get_if<event::OwnerRecorded>(&event)) {
    destination_.on(*recorded, now);
  } else if (const auto* copied = std::get_if<event::CopyProgress>(&event)) {
    relocator_.on(*copied, agent_context(now), out);
  } else if (const auto* held = std::get_if<event::CopyHeld>(&event)) {
    relocator_.on(*held, now);
  } else if (const auto* failed_copy = std::get_if<event::CopyFailed>(&event)) {
    relocator_.on(*failed_copy, out);
  } else if (const auto* settled = std::get_if<event::CopySettled>(&event)) {
    relocator_.on(*settled, now);
  }
}

}  // namespace hf::ha
