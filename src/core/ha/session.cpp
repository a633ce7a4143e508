#include "core/ha/session.hpp"

namespace hf::ha {

Session::Session(HostId self, Timing timing, std::function<OpId()> make_op,
                 std::function<SessionId()> make_id, KeptBug bug)
    : self_(std::move(self)),
      timing_(timing),
      make_op_(std::move(make_op)),
      make_id_(std::move(make_id)),
      bug_(bug) {}

TypedTxn::Condition Session::alive_condition() const { return {record::key::kSessions + self_.text, version_}; }

void Session::become_absent(Instant now) {
  state_ = State::absent;
  op_ = 0;
  next_at_ = now + timing_.tick;
}

void Session::become_active(Version version, Actions& out) {
  state_ = State::active;
  op_ = 0;
  version_ = version;
  next_at_ = grant_began_ + timing_.heartbeat;
  // safety: the lease's time runs from when the store got the grant, which is after we began to ask for it.
  out.emplace_back(action::Renewed{grant_began_, id_});
}

void Session::tick(const View& view, Instant now, Actions& out) {
  if (op_ != 0 || now < next_at_ || !view.synced) return;
  if (state_ == State::absent) {
    state_ = State::granting;
    op_ = make_op_();
    out.emplace_back(action::Grant{op_, timing_.lease_ttl});
  } else if (state_ == State::active) {
    op_ = make_op_();
    next_at_ = now + timing_.heartbeat;
    out.emplace_back(action::KeepAlive{op_, lease_});
  }
}

bool Session::on(const event::LeaseGranted& granted, const View& view, Instant now, Actions& out) {
  if (granted.op != op_ || state_ != State::granting) return false;
  if (!granted.ok) {
    become_absent(now);
    return true;
  }
  lease_ = granted.lease;
  grant_began_ = granted.began;
  id_ = make_id_();
  state_ = State::publishing;
  op_ = make_op_();
  TypedTxn txn;
  // safety: an earlier publication that got stuck on its way must not land after this one: it would bind
  // sessions/<host> to a lease that nobody keeps, and the key would vanish while this session goes on renewing.
  auto replaced = view.incarnations.find(self_);
  txn.conditions.push_back({record::key::kIncarnations + self_.text,
                            replaced == view.incarnations.end() ? 0 : replaced->second.version});
  txn.writes.push_back({record::key::kSessions + self_.text, record::SessionRecord{id_}, lease_});
  // safety: a takeover insists on this key being unchanged, so a session that came and went in between is noticed.
  txn.writes.push_back({record::key::kIncarnations + self_.text, record::SessionRecord{id_}, 0});
  out.emplace_back(action::Commit{op_, std::move(txn)});
  return true;
}

bool Session::on(const event::TxnDone& done, Instant now, Actions& out) {
  if (done.op != op_ || state_ != State::publishing) return false;
  // Unknown: perhaps published. Starting over is right either way: the next session overwrites it.
  if (done.outcome == Outcome::done) {
    become_active(done.version, out);
    return true;
  }
  become_absent(now);
  // What stands there now is what the next attempt replaces; the watch may be late.
  out.emplace_back(action::Read{make_op_(), record::key::kIncarnations + self_.text});
  return true;
}

bool Session::on(const event::LeaseKept& kept, Instant now, Actions& out) {
  if (kept.op != op_ || state_ != State::active) return false;
  op_ = 0;
  if (kept.outcome == Outcome::refused) {
    become_absent(now);
  } else if (kept.outcome == Outcome::done) {
    // safety: counted from the begin of the request; see timing.hpp.
    out.emplace_back(action::Renewed{bug_ == KeptBug::renewal_counts_from_end ? now : kept.began, id_});
  }
  return true;
}

}  // namespace hf::ha
