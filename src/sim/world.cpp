#include "sim/world.hpp"

namespace hf::sim {

Disks::Disks(World& world)
    : w_(world),
      count_(std::max(1, world.params.slots)),
      accesses_(static_cast<std::size_t>(world.params.hosts * count_)) {}

void Disks::access(int host, int disk, std::function<void(bool ok)> done) {
  w_.queue.after(w_.between(0ms, w_.params.disk_max), [this, host, disk, done = std::move(done)]() mutable {
    Access& access = at(host, disk);
    if (access.stalled > 0)
      access.waiting.push_back(std::move(done));
    else
      done(access.failing == 0);
  });
}

void Disks::stall(int host, int disk, int by) {
  Access& access = at(host, disk);
  access.stalled += by;
  if (access.stalled > 0) return;
  for (auto& done : access.waiting) {
    const bool ok = w_.rng.chance(80);
    w_.queue.after(w_.between(0ms, 300ms), [done = std::move(done), ok] { done(ok); });
  }
  access.waiting.clear();
}

void Disks::power_lost(int host) {
  for (int disk = 0; disk < count_; ++disk) {
    auto& waiting = at(host, disk).waiting;
    for (auto& done : waiting) {
      if (w_.rng.chance(30)) w_.queue.after(w_.between(0ms, 3s), [done = std::move(done)] { done(true); });
    }
    waiting.clear();
  }
}

World::World(Params p, ha::KeptBug kept_bug, bool tracing)
    : params(std::move(p)),
      bug(kept_bug),
      rng(params.seed),
      checker(*this),
      network(params.hosts),
      disks(*this),
      service(*this),
      tracing_(tracing) {
  faulty = {params.heartbeat_loss, params.request_loss, params.reply_loss,    params.late_commit,
            params.reply_delay,    params.torn_slots,   params.launch_failure, params.motion_loss,
            params.motion_doubled};
  for (int index = 0; index < params.hosts; ++index) hosts_.push_back(std::make_unique<Host>(*this, index));
}

void World::start() {
  ha::TypedTxn txn;
  for (int disk = 0; disk < disks.count(); ++disk) {
    record::DatastoreRecord datastore;
    datastore.id = DatastoreId(fmt::format("ds{}", disk));
    datastore.name = datastore.id.text;
    txn.writes.push_back({record::key::kDatastores + datastore.name, datastore, 0});
  }
  for (const auto& host : hosts_)
    txn.writes.push_back({record::key::kHosts + host->id().text, host->record(), 0});
  store.commit(txn);
  for (const auto& host : hosts_) host->power_on();
  service.start();
}

void World::run_until(Time until) {
  while (!checker.violation() && queue.run_next(until)) {
    ++events_;
    mix(static_cast<std::uint64_t>(queue.now().count()));
  }
}

int World::host_index(const HostId& id) const {
  for (const auto& host : hosts_) {
    if (host->id() == id) return host->index();
  }
  return -1;
}

void World::store_changed() {
  mix(static_cast<std::uint64_t>(store.version()));
  for (const auto& host : hosts_) host->pump_watch();
}

}  // namespace hf::sim
