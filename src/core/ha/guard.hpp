#pragma once
// The guard's decisions: until when the VMs of this host may run, and which of them are frozen. Pure: the
// caller brings the events with the time they are handled at, and carries out the actions, in order, before
// it answers anybody. Owned by the process holdfast-guard (src/guard), one thread. It never decides who owns
// a VM, and never thaws by itself.
//
// A VM is in one of these states; the hold page is what the shim inside QEMU obeys:
//
//   state      meaning                                                  hold page
//   unguarded  not protected by HA, or local: nobody else can start it  never
//   running    protected; may run until the deadline                    the deadline
//   frozen     latched; runs again only by a `thaw`                     held (0)
//
//   event                            unguarded   running                   frozen
//   renewed                          -           page := deadline          -  (a latch outlives any renewal)
//   time reaches the deadline        -           -> frozen                 -
//   freeze_all                       -           -> frozen                 -
//   thaw, contact fresh, generation  -           -                         -> running (page, then cgroup)
//     quoted is the present one
//   thaw otherwise                   -           -                         refused
//   admit, the same again            -           page again                refused
//   admit, anything else             refused     refused                   refused
//   drop                             removed: page := held in every state
//
// safety (freeze latch): deadline = start of the latest successful renewal of a channel + freeze_after. Every
// event first looks whether the deadline has passed, so a renewal that is *handled* after the deadline cannot
// revive a VM: a guard that was itself stopped freezes before it does anything else.
// safety (proof does not expire): each time the deadline passes (and at each freeze_all and restart) the host
// gets a new generation, larger than any before it, with VMs or without. An admit and a thaw must quote it: the
// agent's claim was begun by somebody who had already seen this lapse of contact.
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/ids.hpp"
#include "base/result.hpp"
#include "base/time.hpp"

namespace hf::ha {

// What stands in a hold page: CLOCK_BOOTTIME in nanoseconds until which the disk may be written
// (doc/formats.md).
using HoldValue = std::uint64_t;
inline constexpr HoldValue kHeld = 0;
inline constexpr HoldValue kNeverHeld = UINT64_MAX;

enum class Channel { store, slot };

struct GuardTiming {
  Duration freeze_after = 0ns;  // from the start of the last successful renewal
  bool alone = false;  // a single host: no channel, nobody else can start a VM, the deadline is never
};

struct Admission {
  VmId vm;
  Epoch epoch;
  std::string cgroup;     // absolute path of the VM's cgroup v2 directory
  std::string hold_page;  // absolute path
  bool is_protected = true;
  bool operator==(const Admission&) const = default;
};

struct SetHold {
  VmId vm;
  HoldValue value = kHeld;
  bool operator==(const SetHold&) const = default;
};
struct Freeze {
  VmId vm;
  bool operator==(const Freeze&) const = default;
};
struct Thaw {
  VmId vm;
  bool operator==(const Thaw&) const = default;
};
using GuardAction = std::variant<SetHold, Freeze, Thaw>;

class Guard {
 public:
  enum class State { unguarded, running, frozen };
  struct Vm {
    Admission admission;
    State state = State::running;
    std::uint64_t generation = 0;  // of the last freeze; 0: never frozen
    Instant since{};               // of the state
    std::string reason;            // of the last freeze, a sentence
  };

  explicit Guard(GuardTiming timing) : timing_(timing) {}

  // A renewal that began at `started` has succeeded. A start in the future counts as `now`.
  void renewed(Channel channel, Instant started, Instant now);
  // Code::unavailable: the deadline has passed. Code::conflict: contact lapsed since the claim, or the VM is
  // admitted differently, or frozen.
  Status admit(const Admission& admission, std::uint64_t generation, Instant now);
  // Code::not_found; Code::conflict: another epoch, or frozen again since the confirmation;
  // Code::unavailable: no contact.
  Status thaw(const VmId& vm, Epoch epoch, std::uint64_t generation, Instant now);
  // Nothing, if the VM is admitted with another epoch by now: a late goodbye to an earlier process.
  void drop(const VmId& vm, Epoch epoch, Instant now);
  void tick(Instant now);
  void freeze_all(const std::string& reason, Instant now);
  // After a restart of the guard: a VM admitted by its predecessor, as it stands. Frozen, or with a page that
  // has passed: latched. REQUIRES: called before any other event.
  void restore(const Admission& admission, HoldValue page, bool cgroup_frozen, Instant now);

  // What is to be done since the last call, in this order.
  std::vector<GuardAction> take_actions() { return std::exchange(actions_, {}); }

  // When tick() has something to do next; Instant::max(): never.
  Instant deadline() const { return timing_.alone ? Instant::max() : deadline_; }
  bool contact_fresh(Instant now) const { return now < deadline(); }
  // Of this host's contact: what an admit or a thaw must quote.
  std::uint64_t generation() const { return generation_; }
  const std::map<VmId, Vm>& vms() const { return vms_; }

 private:
  HoldValue hold_value() const;
  void become_running(Vm& vm, Instant now);
  void become_frozen(Vm& vm, const std::string& reason, Instant now);

  void next_generation(Instant now);

  const GuardTiming timing_;
  Instant deadline_ = Instant::min();
  bool lapsed_ = false;  // the present lapse of contact has its generation
  std::uint64_t generation_ = 0;
  std::map<VmId, Vm> vms_;
  std::vector<GuardAction> actions_;
};

std::string_view name_of(Guard::State state);

}  // namespace hf::ha
