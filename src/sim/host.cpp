#include "sim/host.hpp"

#include "sim/world.hpp"

namespace hf::sim {
namespace {
double draw_rate(World& w) {
  return 1.0 + w.params.drift * static_cast<double>(w.rng.between(-100, 100)) / 100.0;
}
}  // namespace

Host::Host(World& world, int index)
    : w_(world),
      index_(index),
      id_(fmt::format("host{}", index + 1)),
      rate_(draw_rate(world)),
      offset_(world.between(1000s, 100000s)) {}

record::HostRecord Host::record() const {
  record::HostRecord record;
  record.host = id_;
  record.cpus = 64;
  record.memory_mib = w_.params.host_memory_mib;
  for (int disk = 0; disk < w_.disks.count(); ++disk) {
    record.datastores[fmt::format("ds{}", disk)] = "/ds";
    if (disk < w_.params.slots) record.slot_datastores.push_back(fmt::format("ds{}", disk));
  }
  return record;
}

Instant Host::local() const {
  return Instant(offset_ +
                 Duration(static_cast<std::int64_t>(static_cast<double>(w_.queue.now().count()) * rate_)));
}

Duration Host::world_time(Duration local) const {
  return Duration(static_cast<std::int64_t>(static_cast<double>(local.count()) / rate_) + 1);
}

void Host::every(Duration period, Actor& actor, int life, std::function<void()> deed) {
  if (actor.life() != life) return;
  if (actor.moves()) actor.post(life, deed);
  w_.queue.after(world_time(period),
                 [this, period, &actor, life, deed = std::move(deed)] { every(period, actor, life, deed); });
}

void Host::power_on() {
  if (on_) return;
  on_ = true;
  w_.trace([&] { return fmt::format("{}: power on", id_.text); });
  start_guard();
  start_daemon();
}

void Host::power_off() {
  if (!on_) return;
  w_.trace([&] { return fmt::format("{}: power lost", id_.text); });
  on_ = false;
  hung_ = 0;
  daemon.set_hung(false);
  guard_actor.set_hung(false);
  daemon.die();
  guard_actor.die();
  core_.reset();
  launching_.clear();
  for (const auto& [vm, process] : processes_) w_.checker.memory_lost(process);
  refresh_all();
  processes_.clear();
  engines_.clear();
  copying_.clear();
  w_.disks.power_lost(index_);
}

void Host::hang() {
  if (!on_ || ++hung_ > 1) return;
  w_.trace([&] { return fmt::format("{}: hangs", id_.text); });
  daemon.set_hung(true);
  guard_actor.set_hung(true);
  refresh_all();
}

void Host::wake() {
  if (!on_ || hung_ == 0 || --hung_ > 0) return;
  w_.trace([&] { return fmt::format("{}: goes on", id_.text); });
  woke_ = w_.queue.now();
  refresh_all();
  // The guard may be the last to get its CPU back; QEMU's writes come first.
  for (const auto& [vm, process] : processes_) {
    if (may_write(process)) w_.checker.disk_write(*this, process);
  }
  const int guard_life = guard_actor.life(), daemon_life = daemon.life();
  w_.queue.after(w_.between(0ms, w_.params.guard_away), [this, guard_life] {
    if (guard_actor.life() == guard_life && hung_ == 0) guard_actor.set_hung(false);
  });
  w_.queue.after(w_.between(0ms, w_.params.guard_away), [this, daemon_life] {
    if (daemon.life() == daemon_life && hung_ == 0) daemon.set_hung(false);
  });
}

bool Host::awakening() const { return w_.queue.now() - woke_ <= w_.params.timing.guard_latency; }

bool Host::may_write(const Process& process) const {
  const auto now = static_cast<ha::HoldValue>(local().time_since_epoch().count());
  return process.runs && process.page > now;
}

void Host::refresh(Process& process) {
  const bool runs = on_ && hung_ == 0 && process.resumed && !process.frozen;
  if (runs == process.runs) return;
  process.runs = runs;
  process.ran = process.ran || runs;
  if (runs) ++process.memory.ticks;
  if (runs)
    w_.checker.begins_to_run(*this, process);
  else
    w_.checker.stops_running(*this, process);
}

void Host::refresh_all() {
  for (auto& [vm, process] : processes_) refresh(process);
}

}  // namespace hf::sim
