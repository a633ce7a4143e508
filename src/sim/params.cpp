#include "sim/params.hpp"

#include <algorithm>
#include <array>

#include "base/rng.hpp"

namespace hf::sim {
namespace {
Duration draw(Rng& rng, Duration low, Duration high) { return Duration(rng.between(low.count(), high.count())); }

unsigned percent(Rng& rng, unsigned chance_of_any, int most) {
  return rng.chance(chance_of_any) ? static_cast<unsigned>(rng.between(1, most)) : 0;
}
}  // namespace

std::string_view name_of(Fault fault) {
  static constexpr std::array<std::string_view, static_cast<std::size_t>(Fault::count_)> kNames = {
      "power-loss", "host-hang", "daemon-crash", "daemon-pause", "guard-crash", "guard-pause", "link-cut",
      "link-cut-one-way", "partition", "store-cut", "store-minority", "store-leader-change", "slow-commits", "watch-stall",
      "slot-stall", "slot-error", "slot-stall-all", "contact-loss", "qemu-crash", "guest-shutdown"};
  return kNames.at(static_cast<std::size_t>(fault));
}

Params Params::from_seed(std::uint64_t seed) {
  Rng rng(seed ^ 0x5eed5eed5eed5eedULL);
  Params p;
  p.seed = seed;
  constexpr std::array<Duration, 4> kHeartbeats = {1000ms, 1000ms, 600ms, 2000ms};
  p.timing = ha::Timing::from_heartbeat(kHeartbeats.at(rng.below(kHeartbeats.size())));
  const Duration beat = p.timing.heartbeat;
  p.hosts = static_cast<int>(std::min(rng.between(2, 7), rng.between(2, 7)));
  p.vms = static_cast<int>(std::min(rng.between(1, 12), rng.between(1, 12)));
  p.slots = static_cast<int>(rng.between(0, 3));
  p.store_external = rng.chance(60) || p.hosts < 3;
  p.store_members = p.hosts >= 5 && rng.chance(50) ? 5 : 3;
  p.net_max = draw(rng, 1ms, 100ms);
  p.store_max = draw(rng, 2ms, 150ms);
  p.disk_max = draw(rng, 2ms, 200ms);
  p.watch_max = rng.chance(30) ? draw(rng, 0ms, 2s) : draw(rng, 1ms, 200ms);
  p.heartbeat_loss = percent(rng, 40, 50);
  p.request_loss = percent(rng, 30, 15);
  p.reply_loss = percent(rng, 40, 25);
  p.late_commit = percent(rng, 30, 10);
  p.reply_delay = percent(rng, 40, 40);
  p.torn_slots = percent(rng, 30, 30);
  p.launch_min = 50ms;
  p.launch_max = draw(rng, 100ms, 3s);
  p.launch_failure = percent(rng, 30, 20);
  p.host_memory_mib = rng.chance(20) ? 2048 : 8192;
  p.guard_wake = draw(rng, 0ms, beat / 20);
  p.guard_freeze = draw(rng, 0ms, beat / 10);
  p.guard_away = draw(rng, beat / 20, beat / 5);
  p.command_every = rng.chance(30) ? Duration{0} : draw(rng, 1s, 10s);
  if (rng.chance(5)) {
    p.whole_outage = true;
    p.hosts = std::max(p.hosts, 3);
    p.launch_failure = 0;
    p.watch_max = std::min<Duration>(p.watch_max, 500ms);
    return p;
  }
  for (int fault = 0; fault < static_cast<int>(Fault::count_); ++fault) {
    if (rng.chance(40)) p.faults.insert(static_cast<Fault>(fault));
  }
  p.fault_every = draw(rng, 500ms, 8s);
  p.fault_length = draw(rng, 1s, 15s);
  p.storm = draw(rng, 20s, 60s);
  return p;
}

}  // namespace hf::sim
