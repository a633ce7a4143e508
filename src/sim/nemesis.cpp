#include "sim/nemesis.hpp"

#include <array>

#include "sim/world.hpp"

namespace hf::sim {

Nemesis::Nemesis(World& world)
    : w_(world), guard_left_alone_until_(static_cast<std::size_t>(world.params.hosts)) {}

int Nemesis::any_host() {
  return static_cast<int>(w_.rng.below(static_cast<std::uint64_t>(w_.params.hosts)));
}
int Nemesis::any_disk() {
  return static_cast<int>(w_.rng.below(static_cast<std::uint64_t>(w_.disks.count())));
}

void Nemesis::until(Duration length, Deed undo) {
  const std::size_t place = undo_.size();
  undo_.push_back(std::move(undo));
  w_.queue.after(length, [this, place, generation = generation_] {
    if (generation != generation_) return;
    const Deed deed = std::exchange(undo_.at(place), nullptr);
    deed();
  });
}

void Nemesis::heal() {
  ++generation_;
  w_.trace([] { return "nemesis: everything is healed"; });
  for (auto& deed : undo_) {
    if (deed) deed();
  }
  undo_.clear();
  w_.faulty = {};
  for (int host = 0; host < w_.params.hosts; ++host) {
    w_.host(host).power_on();
    w_.host(host).start_guard();
    w_.host(host).start_daemon();
  }
}

void Nemesis::unleash() {
  w_.strike_commit = [this, g = generation_](const HostId& from, const HostId& to) {
    return g == generation_ ? strike_commit(from, to) : Duration{};
  };
  next();
}

void Nemesis::next() {
  const Duration wait = w_.between(0ms, 2 * w_.params.fault_every);
  w_.queue.after(wait, [this, generation = generation_] {
    if (generation != generation_ || w_.params.faults.empty()) return;
    auto fault = w_.params.faults.begin();
    std::advance(fault, static_cast<long>(w_.rng.below(w_.params.faults.size())));
    const bool favoured = w_.params.favourite && w_.rng.chance(33);
    strike(favoured ? *w_.params.favourite : *fault, -1, w_.between(100ms, 2 * w_.params.fault_length));
    next();
  });
}

void Nemesis::link_cut(int from, int to, Duration length) {
  if (from == to) return;
  w_.network.cut(from, to, 1);
  until(length, [this, from, to] { w_.network.cut(from, to, -1); });
}

void Nemesis::partition(Duration length) {
  std::vector<bool> left;
  for (int host = 0; host < w_.params.hosts; ++host) left.push_back(w_.rng.chance(50));
  for (std::size_t a = 0; a < left.size(); ++a) {
    for (std::size_t b = 0; b < left.size(); ++b) {
      if (left[a] != left[b]) link_cut(static_cast<int>(a), static_cast<int>(b), length);
    }
  }
}

void Nemesis::slot_stall(int host, int disk, Duration length) {
  w_.disks.stall(host, disk, 1);
  until(length, [this, host, disk] { w_.disks.stall(host, disk, -1); });
}

void Nemesis::slot_error(int host, int disk, Duration length) {
  w_.disks.fail(host, disk, 1);
  until(length, [this, host, disk] { w_.disks.fail(host, disk, -1); });
}

void Nemesis::stall_for_all(int disk, Duration length) {
  for (int each = 0; each < w_.params.hosts; ++each)
    slot_stall(each, disk, w_.between(length / 2, 3 * length / 2));
}

void Nemesis::contact_loss(int host, Duration length) {
  ++w_.host(host).store_cut;
  until(length, [this, host] { --w_.host(host).store_cut; });
  for (int disk = 0; disk < w_.disks.count(); ++disk) slot_stall(host, disk, length);
  for (int other = 0; other < w_.params.hosts; ++other) {
    link_cut(host, other, length);
    link_cut(other, host, length);
  }
}

void Nemesis::contact_swap(int host, Duration length) {
  // One witness goes as the other comes back: the host is hardly ever without both.
  const auto slots = [this, host, length] {
    for (int disk = 0; disk < w_.params.slots; ++disk) slot_stall(host, disk, length);
  };
  const auto store = [this, host, length] {
    ++w_.host(host).store_cut;
    until(length, [this, host] { --w_.host(host).store_cut; });
  };
  const bool slots_first = w_.rng.chance(50);
  const Duration turn = length + w_.between(-w_.params.timing.freeze_after, w_.params.timing.heartbeat);
  w_.queue.after(slots_first ? 0ns : turn, [=, this, g = generation_] {
    if (g == generation_) slots();
  });
  w_.queue.after(slots_first ? turn : 0ns, [=, this, g = generation_] {
    if (g == generation_) store();
  });
  if (!slots_first || w_.rng.chance(50)) return;
  // As the host's slots come back, the others lose theirs: what they saw of it last is that it stood still.
  w_.queue.after(std::max<Duration>(length - w_.between(0ms, 1s), 0ns), [=, this, g = generation_] {
    if (g != generation_) return;
    for (int other = 0; other < w_.params.hosts; ++other) {
      for (int disk = 0; disk < w_.params.slots && other != host; ++disk) slot_stall(other, disk, 2 * length);
    }
  });
}

void Nemesis::whole_outage(Duration length) {
  w_.trace([] { return "nemesis: all contact of all hosts is lost"; });
  for (int host = 0; host < w_.params.hosts; ++host) contact_loss(host, length);
}

void Nemesis::disturb_guard(int host, bool crash) {
  // The budget: within one freeze_after and its freeze, a guard is away once.
  Time& alone = guard_left_alone_until_.at(static_cast<std::size_t>(host));
  if (w_.queue.now() < alone || !w_.host(host).on()) return;
  const Duration away = w_.between(1ms, w_.params.guard_away);
  alone = w_.queue.now() + 2 * w_.params.timing.freeze_after;
  if (crash) {
    w_.host(host).crash_guard();
    until(away, [this, host] { w_.host(host).start_guard(); });
  } else {
    w_.host(host).pause_guard();
    until(away, [this, host] { w_.host(host).resume_guard(); });
  }
}

void Nemesis::vm_ends(bool shutdown) {
  const Host& host = w_.host(any_host());
  if (host.processes().empty()) return;
  auto process = host.processes().begin();
  std::advance(process, static_cast<long>(w_.rng.below(host.processes().size())));
  if (shutdown && !process->second.runs) return;
  const VmId vm = process->first;
  w_.host(host.index())
      .end_process(vm, shutdown ? ha::ExitKind::guest_shutdown : ha::ExitKind::qemu_crash,
                   shutdown ? "" : "segmentation fault");
}

void Nemesis::motion_crash() {
  std::vector<std::pair<int, VmId>> all;
  for (int host = 0; host < w_.params.hosts; ++host) {
    for (const auto& [vm, engine] : w_.host(host).engines()) all.emplace_back(host, vm);
  }
  if (all.empty()) return;
  const auto& [host, vm] = all.at(w_.rng.below(all.size()));
  w_.host(host).crash_engine(vm);
}

// The windows around a commit are narrow: what strikes there, and how late it is carried out, must fit together.
Duration Nemesis::strike_commit(const HostId& from, const HostId& to) {
  if (!w_.rng.chance(w_.params.strikes)) return {};
  const ha::Timing& timing = w_.params.timing;
  // The destination's contact lapses just as the commit lands: the guest is let run by a guard that has frozen since.
  if (from != to && w_.rng.chance(40)) {
    const Duration length = w_.between(timing.freeze_after, timing.lease_ttl);
    w_.queue.after(w_.between(0ms, 2 * w_.params.store_max), [=, this, side = w_.host_index(to), g = generation_] {
      if (g == generation_) strike(Fault::contact_loss, side, length);
    });
    return {};
  }
  constexpr std::array<Fault, 5> kFaults = {Fault::daemon_crash, Fault::contact_loss, Fault::store_cut,
                                            Fault::power_loss, Fault::daemon_pause};
  const Fault fault = kFaults.at(w_.rng.below(kFaults.size()));
  const int side = w_.host_index(w_.rng.chance(50) ? from : to);
  const Duration length = w_.rng.chance(50) ? w_.between(10ms, 1s)
                                            : w_.between(timing.freeze_after, 2 * timing.lease_ttl);
  w_.queue.after(w_.between(0ms, 50ms), [=, this, g = generation_] {
    if (g == generation_) strike(fault, side, length);
  });
  return w_.rng.chance(50) ? w_.between(0ms, 2s) : w_.between(0ms, 2 * timing.lease_ttl);
}

void Nemesis::strike(Fault fault, int which, Duration length) {
  const bool aimed = w_.params.victim >= 0 && w_.rng.chance(w_.params.aim);
  const int index = which >= 0 ? which : aimed ? w_.params.victim : any_host();
  const int disk = any_disk();
  const int other = any_host();
  Host& host = w_.host(index);
  w_.trace([&] {
    return fmt::format("nemesis: {} {} for {:.3f} s", name_of(fault), host.id().text,
                       std::chrono::duration<double>(length).count());
  });
  switch (fault) {
    case Fault::power_loss:
      host.power_off();
      return until(length, [&host] { host.power_on(); });
    case Fault::host_hang:
      if (w_.queue.now() < guard_left_alone_until_.at(static_cast<std::size_t>(index))) return;
      guard_left_alone_until_.at(static_cast<std::size_t>(index)) =
          w_.queue.now() + length + 2 * w_.params.timing.freeze_after;
      host.hang();
      return until(length, [&host] { host.wake(); });
    case Fault::daemon_crash:
      host.crash_daemon();
      return until(length, [&host] { host.start_daemon(); });
    case Fault::daemon_pause:
      host.daemon.set_paused(true);
      return until(length, [&host] { host.daemon.set_paused(false); });
    case Fault::guard_crash:
    case Fault::guard_pause:
      return disturb_guard(index, fault == Fault::guard_crash);
    case Fault::link_cut:
      link_cut(index, other, length);
      return link_cut(other, index, length);
    case Fault::link_cut_one_way:
      return link_cut(index, other, length);
    case Fault::partition:
      return partition(length);
    case Fault::store_cut:
      ++host.store_cut;
      return until(length, [&host] { --host.store_cut; });
    case Fault::store_minority:
      ++w_.service.minority;
      return until(length, [this] { --w_.service.minority; });
    case Fault::store_leader_change:
      return w_.service.elect_again();
    case Fault::slow_commits:
      ++w_.service.slow_commits;
      return until(length, [this] { --w_.service.slow_commits; });
    case Fault::watch_stall:
      ++host.watch_stalled;
      return until(length, [&host] { --host.watch_stalled; });
    case Fault::slot_stall:
      return slot_stall(index, disk, length);
    case Fault::slot_error:
      return slot_error(index, disk, length);
    case Fault::slot_stall_all:
      return stall_for_all(disk, length);
    case Fault::contact_loss:
      return contact_loss(index, length);
    case Fault::contact_swap:
      return contact_swap(index, length);
    case Fault::qemu_crash:
      return vm_ends(false);
    case Fault::guest_shutdown:
      return vm_ends(true);
    case Fault::motion_crash:
      return motion_crash();
    case Fault::count_:
      return;
  }
}

}  // namespace hf::sim
