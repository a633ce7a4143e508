#include "sim/store_service.hpp"

#include <utility>

#include "sim/world.hpp"

namespace hf::sim {
namespace {
constexpr Duration kExpiryLook = 500ms;  // etcd looks for ended leases twice a second
constexpr Duration kLook = 100ms;
}  // namespace

StoreService::StoreService(World& world) : w_(world) {}

void StoreService::start() {
  become_available(0);
  look();
  expire_leases();
}

bool StoreService::member_up(int member) const {
  const auto& host = w_.host(member);
  return host.on() && !host.hung();
}

int StoreService::members_connected(int member) const {
  int count = 0;
  for (int other = 0; other < w_.params.store_members && other < w_.params.hosts; ++other) {
    if (member_up(other) && w_.network.both(member, other)) ++count;
  }
  return count;
}

void StoreService::look() {
  w_.queue.after(kLook, [this] { look(); });
  if (w_.params.store_external) {
    if (minority > 0)
      available_ = false;
    else if (!available_ && !electing_)
      elect_again();
    return;
  }
  const int members = std::min(w_.params.store_members, w_.params.hosts);
  const int quorum = members / 2 + 1;
  const bool leads =
      available_ && minority == 0 && member_up(leader_) && members_connected(leader_) >= quorum;
  if (leads || electing_) return;
  available_ = false;
  for (int member = 0; member < members && minority == 0; ++member) {
    if (!member_up(member) || members_connected(member) < quorum) continue;
    elect_again();
    return;
  }
}

void StoreService::elect_again() {
  if (electing_) return;
  available_ = false;
  electing_ = true;
  w_.queue.after(w_.between(300ms, 2s), [this] {
    electing_ = false;
    if (minority > 0) return;
    if (w_.params.store_external) return become_available(static_cast<int>(w_.rng.below(3)));
    const int members = std::min(w_.params.store_members, w_.params.hosts);
    const int first = static_cast<int>(w_.rng.below(static_cast<std::uint64_t>(members)));
    for (int n = 0; n < members; ++n) {
      const int member = (first + n) % members;
      if (member_up(member) && members_connected(member) > members / 2) return become_available(member);
    }
  });
}

void StoreService::become_available(int leader) {
  available_ = true;
  leader_ = leader;
  lease_rate_ = w_.params.store_external
                    ? 1.0 + w_.params.drift * static_cast<double>(w_.rng.between(-100, 100)) / 100.0
                    : w_.host(leader).clock_rate();
  w_.store.renew_all(w_.queue.now());
  w_.trace([&] { return fmt::format("store: led by member {}", leader); });
}

void StoreService::expire_leases() {
  w_.queue.after(kExpiryLook, [this] { expire_leases(); });
  if (!available_) return;
  if (w_.store.expire(w_.queue.now())) w_.store_changed();
}

bool StoreService::reachable(int host) const {
  if (!available_) return false;
  if (w_.host(host).store_cut > 0) return false;
  if (w_.params.store_external) return true;
  if (host == leader_) return true;
  const int members = std::min(w_.params.store_members, w_.params.hosts);
  for (int member = 0; member < members; ++member) {
    if (member_up(member) && w_.network.both(host, member) && w_.network.both(member, leader_)) return true;
  }
  return false;
}

ha::Outcome StoreService::commit(int by, const ha::TypedTxn& txn, ha::Version& version) {
  if (!w_.store.accepts(txn)) return ha::Outcome::refused;
  w_.checker.before_commit(by, txn);
  version = w_.store.commit(txn);
  w_.store_changed();
  return ha::Outcome::done;
}

bool StoreService::commit_now(const ha::TypedTxn& txn) {
  ha::Version version = 0;
  return available_ && commit(-1, txn, version) == ha::Outcome::done;
}

void StoreService::request(int host, bool writes, std::function<ha::Outcome()> deed,
                           std::function<void(ha::Outcome)> answer, Duration late) {
  auto& caller = w_.host(host);
  const int life = caller.daemon.life();
  const Time gives_up = w_.queue.now() + kPatience;
  // The first of several answers counts: a caller that has given up does not hear of the deed any more.
  const auto answered = std::make_shared<bool>(false);
  const auto reply = [this, host, life, answered, answer = std::move(answer)](Time at, ha::Outcome outcome) {
    w_.queue.at(at, [this, host, life, outcome, answered, answer] {
      if (!std::exchange(*answered, true))
        w_.host(host).daemon.post(life, [answer, outcome] { answer(outcome); });
    });
  };
  if (!reachable(host) && w_.rng.chance(50)) {
    // Connection refused: certainly not done.
    return reply(w_.queue.now() + w_.between(100ms, 500ms), ha::Outcome::unavailable);
  }
  reply(gives_up, ha::Outcome::unknown);
  if (w_.rng.chance(w_.faulty.request_loss)) return;
  Duration takes = late + w_.between(0ms, w_.params.store_max);
  if (writes && slow_commits > 0) takes += w_.between(0ms, 8s);
  if (writes && w_.rng.chance(w_.faulty.late_commit)) takes += w_.between(1s, 6s);
  w_.queue.after(takes, [this, host, deed = std::move(deed), reply] {
    if (!reachable(host)) return;
    const ha::Outcome outcome = deed();
    Duration back = w_.between(0ms, w_.params.store_max);
    if (w_.rng.chance(w_.faulty.reply_delay)) back = w_.between(0ms, kPatience);
    if (!w_.rng.chance(w_.faulty.reply_loss)) reply(w_.queue.now() + back, outcome);
  });
}

}  // namespace hf::sim
