#pragma once
// Timing: every duration of HA, derived from one base, the heartbeat. Nothing is tuned alone.
//
// The argument, second by second, for the default heartbeat of 1 s. Host H stops everything at T0 (power, hang, all
// contact cut).
//
//   T0-1.0 .. T0    H's last renewals *begin*: store lease (holdfastd) and slots (guard). Each is counted from its
//                   begin, so whatever the store or the datastore did with it, it did later.
//   T0+3.0 .. 4.0   last begin + freeze_after (4.0): H's guard, if H is alive at all, freezes its VMs; the hold page
//                   in each QEMU has passed, so no disk write leaves the shim, even if the guard gets no CPU.
//   T0+3.5 .. 4.5   + guard_latency (0.5): every vCPU stands still.
//   T0+4.0 .. 5.5   last begin + lease_ttl (5.0), and etcd looks for ended leases twice a second: sessions/H
//                   disappears.
//   T0+4.0 .. 6.0   a slot read that began takeover_after (5.0) after the last change was seen (a read every 0.5) is
//                   unchanged.
//   T0+4.0 .. 6.25  the leader's tick (0.25) sees both: H is dead. owners/<vm> is swapped, the restart is issued.
//   So the old VM stands still at last begin + 4.5, and nothing starts before last begin + 5.0, both on clocks that may
//   drift by 0.5 %: 4.5 * 1.005 = 4.5225 < 4.975 = 5.0 * 0.995. 0.45 s remain as margin.
//
//   H was the leader, and its etcd member led etcd as well: two elections, one after the other. Every host has read H's
//   slots all along, so from T0+6.0 on nothing but the leases is waited for.
//   T0+0.9 .. 2.0   etcd elects: each member that is left waits 1 to 2 election timeouts (1.0) since the last heartbeat
//                   (every 0.1); the first of them asks for the votes.
//   T0+6.9 .. 8.0   its new leader gives every lease the full time and one election timeout more: 5.0 + 1.0 (etcd's
//                   lessor, Promote).
//   T0+6.9 .. 8.5   it looks for ended leases twice a second: sessions/H and `leader` disappear together.
//   T0+6.9 .. 8.75  the next tick of another host sees that and swaps `leader` ...
//   T0+6.9 .. 9.0   ... and the tick after that H is dead, and the restart is issued. The swaps themselves come on top:
//                   8.2 to 9.2 were measured on a busy machine (HACKING.md).
//   A vote that etcd's members split costs another 1 to 2 s: 11.0.
//
//   H comes back at any time: what it froze stays frozen until it has swapped owners/<vm> itself; see ARCHITECTURE.md.
//
// Figures asked for: restart issued within 8 s, after the leader's loss within 12 s (vSphere: 15 to 18, and 35).
#include <string>
#include <utility>
#include <vector>

#include "base/result.hpp"
#include "base/time.hpp"

namespace hf::ha {

struct Timing {
  Duration heartbeat = 1s;         // the base: one renewal of each witness, one network heartbeat
  Duration tick = 250ms;           // how often the control thread looks at its timers
  Duration slot_read = 500ms;      // how often each host reads the others' slots
  Duration freeze_after = 4s;      // since the begin of the last successful renewal
  Duration guard_latency = 500ms;  // allowed between the deadline and the last vCPU standing still
  Duration takeover_after = 5s;    // a slot is still if unchanged for this long
  std::chrono::seconds lease_ttl{5};
  Duration claim_timeout = 10s;    // an assignment that its host does not take up goes to another host
  Duration quiet = 10s;            // after its own contact was broken, a leader declares nobody dead
  int drift_permille = 5;          // two clocks may differ by this much over a period

  // All durations from the heartbeat. REQUIRES: validate(heartbeat) passes.
  static Timing from_heartbeat(Duration heartbeat);
  // Code::invalid with the inequality that does not hold. Checked when the daemon starts and in `cluster init`.
  Status validate() const;
  // For `holdfast ha show --timing`: name, value and meaning, in order.
  struct Row {
    std::string name;
    Duration value;
    std::string meaning;
  };
  std::vector<Row> table() const;
};

}  // namespace hf::ha
