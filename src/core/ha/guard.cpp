#include "core/ha/guard.hpp"

#include <algorithm>

namespace hf::ha {
namespace {
constexpr const char* kLostContact =
    "This host could renew neither its store session nor a heartbeat slot in time.";

HoldValue to_hold(Instant instant) {
  return static_cast<HoldValue>(std::max<std::int64_t>(instant.time_since_epoch().count(), 0));
}
}  // namespace

std::string_view name_of(Guard::State state) {
  switch (state) {
    case Guard::State::unguarded:
      return "unguarded";
    case Guard::State::running:
      return "running";
    case Guard::State::frozen:
      return "frozen";
  }
  return "?";
}

HoldValue Guard::hold_value() const { return timing_.alone ? kNeverHeld : to_hold(deadline_); }

void Guard::become_running(Vm& vm, Instant now) {
  vm.state = State::running;
  vm.since = now;
  // safety (deadline): gives the right to write, until the deadline and not longer.
  actions_.emplace_back(SetHold{vm.admission.vm, hold_value()});
}

void Guard::become_frozen(Vm& vm, const std::string& reason, Instant now) {
  vm.state = State::frozen;
  vm.generation = generation_;
  vm.since = now;
  vm.reason = reason;
  // safety (freeze latch): takes the right to run; the page first, so that no write passes while the cgroup
  // stops.
  actions_.emplace_back(SetHold{vm.admission.vm, kHeld});
  actions_.emplace_back(Freeze{vm.admission.vm});
}

void Guard::next_generation(Instant now) {
  // safety (proof does not expire): unique and growing, over restarts of the guard too, since the clock does
  // not go back.
  generation_ = std::max(generation_ + 1, to_hold(now));
}

void Guard::tick(Instant now) {
  if (contact_fresh(now)) {
    lapsed_ = false;
    return;
  }
  if (lapsed_) return;
  lapsed_ = true;
  // safety (freeze latch): the deadline has passed: no protected VM of this host may run.
  freeze_all(kLostContact, now);
}

void Guard::freeze_all(const std::string& reason, Instant now) {
  next_generation(now);
  for (auto& [id, vm] : vms_) {
    if (vm.state == State::running) become_frozen(vm, reason, now);
  }
}

void Guard::renewed(Channel, Instant started, Instant now) {
  tick(now);
  // safety (deadline): counted from the start, so that every observer's "still since" begins later than ours.
  const Instant extended = std::min(started, now) + timing_.freeze_after;
  if (extended <= deadline_) return;
  deadline_ = extended;
  if (contact_fresh(now)) lapsed_ = false;
  for (const auto& [id, vm] : vms_) {
    // safety (freeze latch): only VMs that are not latched get the longer right.
    if (vm.state == State::running) actions_.emplace_back(SetHold{id, hold_value()});
  }
}

Status Guard::admit(const Admission& admission, std::uint64_t generation, Instant now) {
  tick(now);
  if (const auto found = vms_.find(admission.vm); found != vms_.end()) {
    if (!(found->second.admission == admission)) {
      return Error{Code::conflict, "The guard has this VM admitted differently; drop it first."};
    }
    if (found->second.state == State::frozen) {
      return Error{Code::conflict, "The VM is frozen; confirm its ownership and thaw it."};
    }
    actions_.emplace_back(SetHold{admission.vm, admission.is_protected ? hold_value() : kNeverHeld});
    return {};
  }
  if (!admission.is_protected) {
    vms_[admission.vm] = Vm{admission, State::unguarded, 0, now, {}};
    actions_.emplace_back(SetHold{admission.vm, kNeverHeld});
    return {};
  }
  // safety (deadline): a host without contact starts no protected VM.
  if (!contact_fresh(now)) {
    return Error{Code::unavailable,
                 "This host has no contact to the store and its heartbeat slots; no VM may start."};
  }
  // safety (proof does not expire): a claim begun before the last lapse proves nothing about now.
  if (generation != generation_) {
    return Error{Code::conflict, "Contact lapsed since this VM was claimed; confirm its ownership once more."};
  }
  become_running(vms_[admission.vm] = Vm{admission, State::running, 0, now, {}}, now);
  return {};
}

Status Guard::thaw(const VmId& id, Epoch epoch, std::uint64_t generation, Instant now) {
  tick(now);
  const auto found = vms_.find(id);
  if (found == vms_.end()) return Error{Code::not_found, "The guard does not have VM " + id.text + "."};
  Vm& vm = found->second;
  if (vm.admission.epoch != epoch) {
    return Error{Code::conflict, "The guard has VM " + id.text + " with another epoch."};
  }
  if (vm.state != State::frozen) return {};
  // safety (deadline): no right to run without contact.
  if (!contact_fresh(now)) {
    return Error{Code::unavailable, "This host has no contact to the store and its heartbeat slots."};
  }
  // safety (proof does not expire): a confirmation begun before this freeze proves nothing about now.
  if (generation != generation_) {
    return Error{Code::conflict, "VM " + id.text + " was frozen again; confirm its ownership once more."};
  }
  become_running(vm, now);
  actions_.emplace_back(Thaw{id});
  return {};
}

void Guard::drop(const VmId& vm, Epoch epoch, Instant now) {
  tick(now);
  auto found = vms_.find(vm);
  if (found == vms_.end() || found->second.admission.epoch != epoch) return;
  vms_.erase(found);
  // safety (admitted VMs only): whatever is left of a VM that is not admitted writes nothing.
  actions_.emplace_back(SetHold{vm, kHeld});
}

void Guard::restore(const Admission& admission, HoldValue page, bool cgroup_frozen, Instant now) {
  next_generation(now);
  Vm& vm = vms_[admission.vm] = Vm{admission, State::unguarded, 0, now, {}};
  if (!admission.is_protected) {
    actions_.emplace_back(SetHold{admission.vm, kNeverHeld});
    return;
  }
  // safety (freeze latch): what was frozen, or held while the guard was away, stays so until it is confirmed.
  if (cgroup_frozen || page <= to_hold(now)) {
    become_frozen(vm, cgroup_frozen ? "It was frozen when the guard restarted." : kLostContact, now);
    return;
  }
  // safety (deadline): the page was written for a real renewal, so it lies at most freeze_after ahead.
  const HoldValue longest = to_hold(now + timing_.freeze_after);
  const auto until = static_cast<std::int64_t>(std::min(page, longest));
  deadline_ = std::max(deadline_, Instant(Duration(until)));
  become_running(vm, now);
}

}  // namespace hf::ha
