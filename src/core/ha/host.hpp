#pragma once
// HostCore: the whole deciding code of one host: session, observer, agent, a motion's two roles, leader.
// step(event, now) -> actions. Pure: same events, same actions. One thread.
#include <map>
#include <vector>

#include "base/rng.hpp"
#include "core/ha/agent.hpp"
#include "core/ha/events.hpp"
#include "core/ha/leader.hpp"
#include "core/ha/observer.hpp"
#include "core/ha/session.hpp"
#include "core/ha/timing.hpp"
#include "core/ha/view.hpp"
#include "core/motion/destination.hpp"
#include "core/motion/relocator.hpp"
#include "core/motion/source.hpp"

namespace hf::ha {

class HostCore {
 public:
  // seed: for session ids; must differ from life to life of a daemon.
  HostCore(HostId self, Timing timing, std::uint64_t seed, KeptBug bug = KeptBug::none);

  // Events may come in any order; `now` never goes back.
  Actions step(const Event& event, Instant now);

  const View& view() const { return view_; }
  const HostId& self() const { return self_; }
  bool is_leader() const;
  const Session& session() const { return session_; }
  const event::GuardReport& guard() const { return guard_; }
  const Leader& leader() const { return leader_; }
  const Agent& agent() const { return agent_; }

 private:
  void take(const Event& event, Instant now, Actions& out);
  void settle(const event::TxnDone& done, Instant now, Actions& out);
  void take_motion(const Event& event, Instant now, Actions& out);
  void remember(const Actions& actions);
  AgentContext agent_context(Instant now) const {
    return {.view = view_, .session = session_, .guard = guard_, .now = now};
  }
  LeaderContext leader_context(Instant now) const {
    return {.view = view_,
            .session = session_,
            .observer = observer_,
            .guard_lapsed = guard_.lapsed,
            .guard_generation = guard_.generation,
            .now = now};
  }

  const HostId self_;
  Rng rng_;
  OpId next_op_ = 1;
  View view_;
  Session session_;
  Observer observer_;
  Agent agent_;
  motion::Source source_;
  motion::Destination destination_;
  motion::Relocator relocator_;
  Leader leader_;
  event::GuardReport guard_;
  std::map<OpId, std::vector<TypedTxn::Write>> in_flight_;  // our own writes, for the view, once they are done
};

}  // namespace hf::ha
