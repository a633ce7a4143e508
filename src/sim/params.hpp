#pragma once
// Params: what a run is made of, drawn from its seed (swarm testing: whole kinds of faults are absent from
// a run at random, and every figure has a range). A scenario sets them itself.
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "core/ha/timing.hpp"

namespace hf::sim {

// doc/simulator.md says what each does.
enum class Fault {
  power_loss,
  host_hang,
  daemon_crash,
  daemon_pause,
  guard_crash,
  guard_pause,
  link_cut,
  link_cut_one_way,
  partition,
  store_cut,
  store_minority,
  store_leader_change,
  slow_commits,
  watch_stall,
  slot_stall,
  slot_error,
  slot_stall_all,
  contact_loss,
  contact_swap,
  qemu_crash,
  guest_shutdown,
  motion_crash,
  count_
};
std::string_view name_of(Fault fault);

struct Params {
  std::uint64_t seed = 0;
  ha::Timing timing;
  int hosts = 3;
  int vms = 4;
  int slots = 1;                // datastores that carry heartbeat slots
  bool store_external = false;  // else its members are on the first hosts
  int store_members = 3;
  double drift = 0.0025;  // each clock's rate is within 1 +- drift

  Duration net_max = 5ms;     // one way
  Duration store_max = 20ms;  // one request or answer
  Duration disk_max = 20ms;   // one slot or owner file
  Duration watch_max = 50ms;
  unsigned heartbeat_loss = 0;                                 // percent
  unsigned request_loss = 0, reply_loss = 0, late_commit = 0;  // percent
  unsigned reply_delay = 0;  // percent of answers that take up to the caller's patience
  unsigned torn_slots = 0;   // percent

  Duration launch_min = 100ms, launch_max = 1s;
  unsigned launch_failure = 0;  // percent
  unsigned motion_loss = 0, motion_doubled = 0;  // percent of what motion processes say
  int motion_rounds = 3;                         // up to
  Duration motion_round_max = 300ms;
  unsigned strikes = 0;  // percent of the motions whose commit is struck: late, and a side of it with a fault
  unsigned migrations = 0;  // percent of the commands
  unsigned relocations = 0;  // percent of the commands: a VM's disk is converted
  unsigned maintenance = 0;  // percent of the commands: a host goes into maintenance, or leaves it
  std::uint64_t host_memory_mib = 8192;

  // What the guard may need in all stays within timing.guard_latency: wake + freeze + away + freeze.
  Duration guard_wake = 10ms, guard_freeze = 50ms, guard_away = 100ms;

  std::set<Fault> faults;
  std::optional<Fault> favourite;  // a third of all faults
  int victim = -1;                 // this host is hit by `aim` percent of what hits one host; -1: none is
  unsigned aim = 50;
  Duration fault_every = 3s;    // mean
  Duration fault_length = 8s;   // mean
  Duration command_every = 5s;  // mean; 0: none
  Duration storm = 40s;         // how long the nemesis is at work
  bool whole_outage = false;  // one outage of everybody's contact and nothing else: nothing may be taken over

  static Params from_seed(std::uint64_t seed);
  // One line, for the log.
  std::string text() const;
};

}  // namespace hf::sim
