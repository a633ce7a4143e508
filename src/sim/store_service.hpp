#pragma once
// StoreService: the way of a simulated host to the store and back: members and their leader, requests that
// get lost before or after the deed, deeds that happen after the caller has given up, watches that lag,
// break and come back. Owned by World.
#include <functional>
#include <memory>

#include "core/ha/events.hpp"
#include "sim/world_store.hpp"

namespace hf::sim {

class World;

class StoreService {
 public:
  static constexpr Duration kPatience = 2s;  // of a caller; Store::Options::timeout

  explicit StoreService(World& world);
  void start();

  // A request of a host's daemon. `deed` runs at the store, at most once; `answer` at the caller, exactly
  // once, unless the daemon's life ends before. A deed's own outcome is given on; Outcome::unknown covers
  // a lost answer. `late`: that much later than it would.
  void request(int host, bool writes, std::function<ha::Outcome()> deed,
               std::function<void(ha::Outcome)> answer, Duration late = {});
  // Of a user at a healthy client. False: the store cannot be reached or refuses.
  bool commit_now(const ha::TypedTxn& txn);
  // safety: the only way to the records; every commit passes the checker.
  ha::Outcome commit(int by, const ha::TypedTxn& txn, ha::Version& version);

  bool reachable(int host) const;
  bool available() const { return available_; }
  // The member that leads; -1: none. For an external store it is no host.
  int leader_member() const { return leader_; }
  // How long a lease of that time lasts on the leader's clock.
  Duration lease_time(Duration ttl) const {
    return Duration(static_cast<std::int64_t>(static_cast<double>(ttl.count()) / lease_rate_));
  }
  void elect_again();

  int minority = 0;      // > 0: an external store, or the members among themselves, have no quorum
  int slow_commits = 0;  // > 0: writes take long, keep-alives do not

 private:
  void look();  // whether there is a quorum; elects
  void become_available(int leader);
  void expire_leases();
  bool member_up(int member) const;
  int members_connected(int member) const;

  World& w_;
  bool available_ = false;
  bool electing_ = false;
  int leader_ = 0;
  double lease_rate_ = 1.0;  // the leader's clock
};

}  // namespace hf::sim
