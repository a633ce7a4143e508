#pragma once
// Nemesis: makes faults, at random (swarm) or by name (scenarios), and takes them back. Faults of the same
// kind may overlap; each ends by itself. It keeps to the fault budget that core/ha/timing.hpp promises to
// survive (doc/simulator.md).
#include <string>

#include "core/record/records.hpp"
#include "sim/params.hpp"
#include "sim/queue.hpp"

namespace hf::sim {

class World;

class Nemesis {
 public:
  explicit Nemesis(World& world);
  // Random faults from now on, until heal().
  void unleash();
  // Ends every fault and starts whatever is down.
  void heal();
  // One fault for that long; -1 as a host: a random one.
  void strike(Fault fault, int host, Duration length);
  // All contact of every host: store, slots, network.
  void whole_outage(Duration length);

 private:
  void next();
  void until(Duration length, Deed undo);
  void contact_loss(int host, Duration length);
  void contact_swap(int host, Duration length);
  void link_cut(int from, int to, Duration length);
  void partition(Duration length);
  void slot_stall(int host, int disk, Duration length);
  void stall_for_all(int disk, Duration length);
  void slot_error(int host, int disk, Duration length);
  void disturb_guard(int host, bool crash);
  void vm_ends(bool shutdown);
  void motion_crash();
  Duration strike_commit(const HostId& from, const HostId& to);
  int any_host();
  int any_disk();

  World& w_;
  int generation_ = 0;      // of the healing: what was to be undone before it, was
  std::vector<Deed> undo_;  // by fault under way; null: undone
  std::vector<Time> guard_left_alone_until_;
};

}  // namespace hf::sim
