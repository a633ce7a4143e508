#include "core/ha/host.hpp"

#include <fmt/format.h>

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
      leader_(self, timing, [this] { return next_op_++; }, bug) {}

bool HostCore::is_leader() const {
  return leader_.is_leader(leader_context(Instant{}));
}

Actions HostCore::step(const Event& event, Instant now) {
  Actions out;
  take(event, now, out);
  observer_.look_at(view_, now);
  const bool about_others =
      std::holds_alternative<event::SlotRead>(event) || std::holds_alternative<event::HeartbeatHeard>(event);
  if (!about_others) agent_.reconcile(agent_context(now), out);
  remember(out);
  return out;
}

void HostCore::remember(const Actions& actions) {
  for (const auto& action : actions) {
    if (const auto* commit = std::get_if<action::Commit>(&action)) in_flight_[commit->op] = commit->txn.writes;
  }
}

namespace {
template <class... Fs>
struct overloaded : Fs... {
  using Fs::operator()...;
};
template <class... Fs>
overloaded(Fs...) -> overloaded<Fs...>;
}  // namespace

void HostCore::take(const Event& event, Instant now, Actions& out) {
  std::visit(
      overloaded{
          [&](const event::Tick&) {
            session_.tick(view_, now, out);
            leader_.tick(leader_context(now), out);
          },
          [&](const event::StoreReset& e) { view_.reset(e.all, e.as_of); },
          [&](const event::StoreChanged& e) { view_.apply(e.changes, e.as_of); },
          [&](const event::TxnDone& e) {
            auto writes = in_flight_.extract(e.op);
            if (!writes.empty() && e.outcome == Outcome::done) {
              for (auto& write : writes.mapped()) view_.apply_own({write.key, e.version, write.value});
            }
            if (session_.on(e, now, out) || leader_.on(e, leader_context(now))) return;
            agent_.on(e, agent_context(now), out);
          },
          [&](const event::KeyRead& e) {
            if (e.ok) view_.apply_read(e.state, e.as_of);
            agent_.on(e, agent_context(now), out);
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
          [&](const event::Exited& e) { agent_.on(e, agent_context(now), out); },
          [&](const event::Paused& e) { agent_.on(e, now); },
          [&](const event::WentOn& e) { agent_.on(e, now); },
      },
      event);
}

}  // namespace hf::ha
