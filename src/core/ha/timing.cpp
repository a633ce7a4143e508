#include "core/ha/timing.hpp"

#include <fmt/format.h>

namespace hf::ha {
namespace {
constexpr Duration kHeartbeatMin = 400ms;  // below it, whole-second leases and etcd's own 500 ms steps dominate
constexpr Duration kHeartbeatMax = 10s;

double seconds(Duration d) { return std::chrono::duration<double>(d).count(); }

Duration stretched(Duration d, int permille) { return d + d / 1000 * permille; }
}  // namespace

Timing Timing::from_heartbeat(Duration heartbeat) {
  Timing t;
  t.heartbeat = heartbeat;
  t.tick = heartbeat / 4;
  t.slot_read = heartbeat / 2;
  t.freeze_after = 4 * heartbeat;
  t.guard_latency = heartbeat / 2;
  t.takeover_after = 5 * heartbeat;
  t.lease_ttl = std::chrono::ceil<std::chrono::seconds>(5 * heartbeat);
  t.claim_timeout = 10 * heartbeat;
  t.quiet = 10 * heartbeat;
  return t;
}

Status Timing::validate() const {
  if (heartbeat < kHeartbeatMin || heartbeat > kHeartbeatMax) {
    return Error{Code::invalid, fmt::format("The heartbeat is {:.3f} s; it must be between {:.1f} and {:.0f} s.",
                                            seconds(heartbeat), seconds(kHeartbeatMin), seconds(kHeartbeatMax))};
  }
  if (freeze_after < 3 * heartbeat) {
    return Error{Code::invalid,
                 "freeze_after must be at least three heartbeats: one lost renewal is no reason to freeze."};
  }
  // safety: frozen before anybody may start it elsewhere, whatever the two clocks do within the allowed drift.
  const Duration stands_still = stretched(freeze_after + guard_latency, drift_permille);
  const Duration may_start = stretched(std::min<Duration>(takeover_after, lease_ttl), -drift_permille);
  if (stands_still >= may_start) {
    return Error{
        Code::invalid,
        fmt::format("A VM stands still only after {:.3f} s but could be taken over after {:.3f} s: "
                    "freeze_after + guard_latency must be smaller than takeover_after and lease_ttl.",
                    seconds(stands_still), seconds(may_start))};
  }
  if (slot_read > heartbeat || tick > heartbeat) {
    return Error{Code::invalid, "slot_read and tick must not be longer than the heartbeat."};
  }
  return {};
}

std::vector<Timing::Row> Timing::table() const {
  const Duration stands_still = stretched(freeze_after + guard_latency, drift_permille);
  const Duration may_start = stretched(std::min<Duration>(takeover_after, lease_ttl), -drift_permille);
  return {
      {"heartbeat", heartbeat, "base of all: each witness is renewed, each peer hears from us"},
      {"slot_read", slot_read, "how often other hosts' slots are looked at"},
      {"freeze_after", freeze_after,
       "since the begin of the last renewal of store lease or slot: VMs freeze, writes are held"},
      {"guard_latency", guard_latency, "allowance until every vCPU stands still"},
      {"lease_ttl", lease_ttl, "the host's session ends in the store"},
      {"takeover_after", takeover_after, "a slot unchanged for this long is still"},
      {"margin", may_start - stands_still,
       fmt::format("between \"stands still\" and \"may start elsewhere\", clocks drifting apart by {:.1f} %",
                   drift_permille / 10.0)},
      {"claim_timeout", claim_timeout, "an assignment not taken up goes to another host"},
      {"quiet", quiet, "after its own contact broke, a leader declares nobody dead"},
  };
}

}  // namespace hf::ha
