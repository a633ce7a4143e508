#pragma once
// Session: keeps this host's presence in the store: grants a lease, writes sessions/<host> (bound to it) and
// incarnations/<host>, keeps the lease alive once a heartbeat, starts over when it has ended.
//
//   absent --grant--> granting --granted--> publishing --committed--> active --lease ended--> absent
//      ^------------- failed -------/------- failed or unknown -----/
//
// Pure; owned by the control thread through HostCore.
#include <functional>
#include <optional>

#include "core/ha/events.hpp"
#include "core/ha/timing.hpp"

namespace hf::ha {

class Session {
 public:
  // make_op gives fresh OpIds; make_id fresh session ids.
  Session(HostId self, Timing timing, std::function<OpId()> make_op, std::function<SessionId()> make_id,
          KeptBug bug = KeptBug::none);

  // Nothing begins before the view is synced: publishing names the host's incarnation that it replaces.
  void tick(const View& view, Instant now, Actions& out);
  // Each returns true if the event was this session's.
  bool on(const event::LeaseGranted& granted, const View& view, Instant now, Actions& out);
  bool on(const event::TxnDone& done, Instant now, Actions& out);
  bool on(const event::LeaseKept& kept, Instant now, Actions& out);

  bool active() const { return state_ == State::active; }
  // REQUIRES: active()
  const SessionId& id() const { return id_; }
  // The version of sessions/<host>: a swap with this condition succeeds only while the session lives.
  Version version() const { return version_; }
  LeaseNumber lease() const { return lease_; }
  TypedTxn::Condition alive_condition() const;

 private:
  enum class State { absent, granting, publishing, active };
  void become_absent(Instant now);
  void become_active(Version version, Actions& out);

  const HostId self_;
  const Timing timing_;
  const std::function<OpId()> make_op_;
  const std::function<SessionId()> make_id_;
  const KeptBug bug_;
  State state_ = State::absent;
  OpId op_ = 0;  // the request in flight; 0: none
  Instant next_at_{};
  Instant grant_began_{};
  SessionId id_;
  LeaseNumber lease_ = 0;
  Version version_ = 0;
};

}  // namespace hf::ha
