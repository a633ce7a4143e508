#pragma once
// World: everything there is in a simulated cluster, in one process, from one seed: hosts, store, network,
// datastores, users and the nemesis, in virtual time. One thread. The same seed gives the same run, to the
// last event (hash()).
#include <fmt/format.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/rng.hpp"
#include "sim/checker.hpp"
#include "sim/host.hpp"
#include "sim/params.hpp"
#include "sim/queue.hpp"
#include "sim/store_service.hpp"
#include "sim/world_store.hpp"

namespace hf::sim {

// Directed links between hosts.
class Network {
 public:
  explicit Network(int hosts) : hosts_(hosts), cut_(static_cast<std::size_t>(hosts * hosts), 0) {}
  bool up(int from, int to) const { return cut_.at(place(from, to)) == 0; }
  bool both(int a, int b) const { return a == b || (up(a, b) && up(b, a)); }
  void cut(int from, int to, int by) { cut_.at(place(from, to)) += by; }

 private:
  std::size_t place(int from, int to) const { return static_cast<std::size_t>(from * hosts_ + to); }
  int hosts_;
  std::vector<int> cut_;  // how many faults cut it
};

// What each host can do with each datastore, and what stands in the slots and owner files.
class Disks {
 public:
  explicit Disks(World& world);
  int count() const { return count_; }
  // One read or write of `host`; `done` runs when it has taken effect or failed (false). While stalled it
  // waits, and takes effect, perhaps, when the stall ends, whoever has given up on it by then.
  void access(int host, int disk, std::function<void(bool ok)> done);
  void stall(int host, int disk, int by);
  void fail(int host, int disk, int by) { at(host, disk).failing += by; }
  // The machine has lost its power: what it had waiting is lost, or lands a little later.
  void power_lost(int host);

  std::uint64_t& slot(int host, int disk) { return at(host, disk).slot; }
  std::map<VmId, Epoch>& owner_files() { return owner_files_; }

 private:
  struct Access {
    int stalled = 0, failing = 0;
    std::uint64_t slot = 0;  // the content of the host's slot there
    std::vector<std::function<void(bool)>> waiting;
  };
  Access& at(int host, int disk) { return accesses_.at(static_cast<std::size_t>(host * count_ + disk)); }

  World& w_;
  int count_;
  std::vector<Access> accesses_;
  std::map<VmId, Epoch> owner_files_;  // on disk 0, where all VMs are
};

class World {
 public:
  // Told when the commit of a motion or a relocation is sent; says how much later it is carried out. Of the nemesis.
  std::function<Duration(const HostId& from, const HostId& to)> strike_commit;
  World(Params params, ha::KeptBug bug, bool tracing);
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  // Brings the cluster up: inventory, hosts, store.
  void start();
  // Runs until then, or until an invariant is broken.
  void run_until(Time until);

  Host& host(int index) { return *hosts_.at(static_cast<std::size_t>(index)); }
  const Host& host(int index) const { return *hosts_.at(static_cast<std::size_t>(index)); }
  int host_index(const HostId& id) const;
  void store_changed();

  Duration between(Duration low, Duration high) {
    return Duration(rng.between(low.count(), std::max(low, high).count()));
  }
  std::uint64_t fresh_number() { return ++fresh_; }

  // A line of the cluster's log; `make` is called only if somebody wants it.
  template <class Make>
  void trace(const Make& make) {
    mix(static_cast<std::uint64_t>(queue.now().count()));
    if (!tracing_) return;
    lines_.push_back(fmt::format("{:9.3f} {}", std::chrono::duration<double>(queue.now()).count(), make()));
  }
  void mix(std::uint64_t number) { hash_ = (hash_ ^ number) * 0x100000001b3ULL; }
  std::uint64_t hash() const { return hash_; }
  const std::vector<std::string>& lines() const { return lines_; }
  std::uint64_t events() const { return events_; }

  // What goes wrong at random by itself, until the world is healed.
  struct Faulty {
    unsigned heartbeat_loss = 0, request_loss = 0, reply_loss = 0, late_commit = 0, reply_delay = 0,
             torn_slots = 0, launch_failure = 0, motion_loss = 0, motion_doubled = 0;
  };

  const Params params;
  const ha::KeptBug bug;
  Faulty faulty;
  EventQueue queue;
  Rng rng;
  WorldStore store;
  Checker checker;
  Network network;
  Disks disks;
  StoreService service;
  // What is on the datastore: VM -> file -> the last write in it.
  std::map<VmId, std::map<std::string, std::uint64_t>> images;

 private:
  bool tracing_;
  std::uint64_t hash_ = 0xcbf29ce484222325ULL;
  std::uint64_t fresh_ = 0;
  std::uint64_t events_ = 0;
  std::vector<std::string> lines_;
  std::vector<std::unique_ptr<Host>> hosts_;
};

}  // namespace hf::sim
