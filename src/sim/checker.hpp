#pragma once
// Checker: the invariants, looked at whenever something they speak of changes. It sees the whole world at
// one instant, which no host can. The first violation ends the run. Owned by World.
//
//   one-copy         a VM runs on one host only; what awakens on a machine that stood still may execute for
//                    guard_latency, with its disk writes held, until its guard has frozen it
//   right-to-run     whatever begins to run holds owners/<vm>: claimed, by its host, with its epoch
//   proven-unable    when a takeover commits, the old copy does not run, writes nothing, and cannot begin
//                    without a new claim
//   epochs           the epoch in owners/<vm> never falls; no two processes have the same epoch of a VM
//   moved            a commit of a motion is the source's, of a motion that is `ready`, while the guest stands still
//                    there and all of it waits at the destination (or the store still holds that one to be alive)
//   memory           a guest that runs has all of its memory: nothing of it is lost, and it does not boot anew, unless
//                    its QEMU or its host died, it was stopped, or taken over
//   cpu              a guest sees the processor that it booted with, wherever it goes
//   room             no decision gives a host more VMs, or more motions, than it can take, as the decider sees it
//   maintenance      no host is given a VM, nor a motion to it, while its maintenance record is in the store
//   images           a guest begins with an image that holds every write it was told of; after each write the image
//                    that the store's spec names holds it; that one is never deleted
//   disk             no disk write of an older epoch after the first of a newer one
//   edges            owners/<vm> changes along the edges of its life only; only the host itself claims
//   liveness         healed, everything becomes as it is wanted within a bound
//   calm             healed and settled, nobody freezes and nobody is taken over; after an outage of all
//                    contact of the whole cluster, nobody is taken over
//   errors           no event of severity error that no fault explains
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/ha/events.hpp"
#include "sim/host.hpp"
#include "sim/queue.hpp"

namespace hf::sim {

class World;

struct Violation {
  std::string invariant;
  std::string what;
  Time at{};
};

class Checker {
 public:
  explicit Checker(World& world) : w_(world) {}

  // `by`: host index; -1: a user.
  void before_commit(int by, const ha::TypedTxn& txn);
  void begins_to_run(const Host& host, const Process& process);
  void stops_running(const Host& host, const Process& process);
  void disk_write(const Host& host, const Process& process);
  // The number of the VM's next write; it has reached that guest's images and the guest is told.
  std::uint64_t next_write(const VmId& vm) { return vms_[vm].acknowledged + 1; }
  void acknowledged(const Host& host, const Process& process, std::uint64_t write);
  void deleted(const VmId& vm, const std::string& image);
  // The guest has gone on a bit.
  void memory_changed(const Process& process);
  // What the process held is gone, by a fault or by the guest's own will.
  void memory_lost(const Process& process);
  // That host is about to send it.
  void decided(const Host& host, const ha::TypedTxn& txn);
  void frozen(const Host& host, const Process& process);
  void reported(const Host& host, const record::EventRecord& event);

  // From now on: no takeover, no freeze.
  void expect_no_takeover() { no_takeover_ = true; }
  void expect_calm() { no_takeover_ = no_freeze_ = true; }
  // Why the world is not as it is wanted; empty: it is.
  std::string unsettled() const;
  void fail(std::string invariant, std::string what);
  const std::optional<Violation>& violation() const { return violation_; }

  struct Counts {
    std::uint64_t runs = 0, freezes = 0, takeovers = 0, commits = 0, moves = 0, relocations = 0;
  };
  const Counts& counts() const { return counts_; }

 private:
  struct Copy {
    int host;
    Epoch epoch;
    std::uint64_t number;
  };
  struct VmFacts {
    std::vector<Copy> copies;                  // that run now
    std::map<Epoch, std::uint64_t> processes;  // epoch -> the process that ran with it
    Epoch written;                             // the newest epoch that has written to the disk
    Epoch owned;
    std::uint64_t acknowledged = 0;  // writes
    Memory memory;       // as the guest last had it
    bool lost = false;   // and it is gone, with a reason
  };
  void check_owner_change(int by, const VmId& vm, const record::Any& next);
  void check_move(int by, const VmId& vm, const record::OwnerRecord& before, const record::OwnerRecord& next);
  void check_image(const Process& process, const std::string& what);
  std::string named_image(const VmId& vm) const;
  void check_memory(const Host& host, const Process& process, VmFacts& facts);
  void check_room(const ha::View& view, const VmId& vm, const HostId& host);
  void check_open(const VmId& vm, const HostId& host);
  void check_motions(const ha::View& view, const HostId& host);
  std::string left_behind() const;
  std::string not_evacuated() const;
  void check_takeover(const VmId& vm, const record::OwnerRecord& before);
  bool holds_right(const Host& host, const Process& process) const;
  bool has_room(const record::VmRecord& vm) const;
  bool waits_for_room(const VmId& vm) const;
  void log_change(const ha::TypedTxn::Write& write);
  const Process* process_of(const Copy& copy, const VmId& vm) const;

  World& w_;
  std::map<VmId, VmFacts> vms_;
  bool no_takeover_ = false, no_freeze_ = false;
  std::optional<Violation> violation_;
  Counts counts_;
};

}  // namespace hf::sim
