#include "sim/params.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/rng.hpp"

namespace hf::sim {
namespace {
Duration draw(Rng& rng, Duration low, Duration high) {
  return Duration(rng.between(low.count(), high.count()));
}

unsigned percent(Rng& rng, unsigned chance_of_any, int most) {
  return rng.chance(chance_of_any) ? static_cast<unsigned>(rng.between(1, most)) : 0;
}
}  // namespace

std::string_view name_of(Fault fault) {
  static constexpr std::array<std::string_view, static_cast<std::size_t>(Fault::count_)> kNames = {
      "power-loss",     "host-hang",    "daemon-crash",   "daemon-pause",
      "guard-crash",    "guard-pause",  "link-cut",       "link-cut-one-way",
      "partition",      "store-cut",    "store-minority", "store-leader-change",
      "slow-commits",   "watch-stall",  "slot-stall",     "slot-error",
      "slot-stall-all", "contact-loss", "contact-swap",   "qemu-crash",
      "guest-shutdown", "motion-crash"};
  return kNames.at(static_cast<std::size_t>(fault));
}

std::string Params::text() const {
  const auto ms = [](Duration d) { return d / std::chrono::milliseconds(1); };
  std::string line = fmt::format(
      "{} hosts, {} VMs, {} slots, {} store, heartbeat {} ms; up to ms: net {}, store {}, disk {}, watch {}, "
      "launch {}; percent: "
      "heartbeats lost {}, requests lost {}, replies lost {}, commits late {}, replies late {}, motions lost {}; "
      "migrations {} %, maintenance {} %; faults every {} ms for {} ms:",
      hosts, vms, slots, store_external ? "external" : "inner", ms(timing.heartbeat), ms(net_max),
      ms(store_max), ms(disk_max), ms(watch_max), ms(launch_max), heartbeat_loss, request_loss, reply_loss,
      late_commit, reply_delay, motion_loss, migrations, maintenance, ms(fault_every), ms(fault_length));
  for (const Fault fault : faults) line += fmt::format(" {}", name_of(fault));
  return line;
}

namespace {
// Witnesses that come and go in turn, seen late, with nothing else to judge by: the races between a
// takeover and a return.
void make_flapping(Params& p, Rng& rng) {
  p.timing = ha::Timing::from_heartbeat(rng.chance(70) ? 600ms : 1000ms);
  const Duration beat = p.timing.heartbeat;
  p.guard_wake = beat / 20;
  p.guard_freeze = draw(rng, 0ms, beat / 10);
  p.guard_away = beat / 10;
  p.hosts = std::max(p.hosts, 3);
  p.store_external = true;
  p.slots = static_cast<int>(rng.between(1, 2));
  p.heartbeat_loss = 100;
  p.disk_max = std::min<Duration>(p.disk_max, 50ms);
  p.watch_max = draw(rng, 1s, 3s);
  p.late_commit = static_cast<unsigned>(rng.between(10, 50));
  p.request_loss = p.reply_loss = p.reply_delay = 0;
  p.faults = {Fault::contact_swap};
  if (rng.chance(60)) p.faults.insert(Fault::slot_stall_all);
  p.fault_every = draw(rng, 4s, 8s);
  p.fault_length = 6 * beat;
  p.victim = static_cast<int>(rng.below(static_cast<std::uint64_t>(p.hosts)));
  p.aim = 95;
  p.storm = 60s;
}

// VMs on the move most of the time, and what strikes them there.
void make_moving(Params& p, Rng& rng) {
  p.hosts = std::max(p.hosts, 2);
  p.migrations = static_cast<unsigned>(rng.between(50, 95));
  p.command_every = draw(rng, 200ms, 2s);
  p.motion_rounds = static_cast<int>(rng.between(0, 6));
  p.motion_round_max = draw(rng, 20ms, 1500ms);
  p.motion_loss = percent(rng, 50, 15);
  p.motion_doubled = percent(rng, 50, 30);
  if (rng.chance(50)) p.launch_max = 300ms;
  for (const Fault fault : {Fault::daemon_crash, Fault::motion_crash, Fault::store_cut, Fault::daemon_pause}) {
    if (rng.chance(40)) p.faults.insert(fault);
  }
  if (rng.chance(30)) p.host_memory_mib = 2048;
  p.maintenance = percent(rng, 40, 15);
  if (rng.chance(50)) p.strikes = static_cast<unsigned>(rng.between(20, 90));
}

// Disks on the move most of the time.
void make_relocating(Params& p, Rng& rng) {
  p.relocations = static_cast<unsigned>(rng.between(20, 90));
  if (p.command_every == Duration{0} || rng.chance(60)) p.command_every = draw(rng, 200ms, 2s);
  p.motion_round_max = draw(rng, 20ms, 1500ms);
  if (rng.chance(50)) p.strikes = static_cast<unsigned>(rng.between(20, 90));
}
}  // namespace

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
  // No heartbeat at all: their veto hides much of what store and slots must get right alone.
  p.heartbeat_loss = rng.chance(30) ? 100 : percent(rng, 40, 50);
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
    p.launch_failure = p.request_loss = p.reply_loss = p.late_commit = p.reply_delay = 0;
    p.watch_max = std::min<Duration>(p.watch_max, 500ms);
    return p;
  }
  for (int fault = 0; fault < static_cast<int>(Fault::count_); ++fault) {
    if (rng.chance(40)) p.faults.insert(static_cast<Fault>(fault));
  }
  if (rng.chance(60)) p.victim = static_cast<int>(rng.below(static_cast<std::uint64_t>(p.hosts)));
  p.fault_every = draw(rng, 500ms, 8s);
  p.fault_length = draw(rng, 1s, 15s);
  p.storm = draw(rng, 20s, 60s);
  const bool flaps = rng.chance(30);
  if (flaps) make_flapping(p, rng);
  if (rng.chance(50) && !p.faults.empty()) {
    auto favourite = p.faults.begin();
    std::advance(favourite, static_cast<long>(rng.below(p.faults.size())));
    p.favourite = *favourite;
  }
  if (rng.chance(flaps ? 35 : 50)) make_moving(p, rng);  // seldom both: it undoes some of what flapping needs
  if (rng.chance(40)) make_relocating(p, rng);
  return p;
}

}  // namespace hf::sim
