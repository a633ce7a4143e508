#pragma once
// Checks: why a VM cannot move, all reasons at once. One function for the leader, which plans by it, and for
// `vm migrate --dry-run`. Pure.
#include <map>
#include <string>
#include <vector>

#include "core/ha/observer.hpp"
#include "core/placement/placement.hpp"

namespace hf::motion {

struct Question {
  const ha::View& view;
  const std::map<HostId, ha::Assessment>& health;
  // Of all hosts that are alive, with what is used there: owners and motions (use_of_hosts).
  const std::vector<placement::Candidate>& candidates;
  VmId vm;
  HostId to;  // empty: the best host
  record::Engine engine = record::Engine::automatic;
  vm::Relocation disks = {};  // that go along; no datastore: none
};

struct Answer {
  HostId to;                         // where it would go; empty: nowhere
  std::vector<std::string> reasons;  // why not, each a sentence
  record::Engine engine = record::Engine::automatic;  // that would be used; automatic: there is no such VM
};
Answer check(const Question& question);

// The hosts that are alive and how much of each is used: by VMs that have it as owner, and by VMs that come to it or
// have just left it.
std::vector<placement::Candidate> use_of_hosts(const ha::View& view, const std::map<HostId, ha::Assessment>& health);
// Why the host takes no VM, a phrase that follows its name; empty: it does.
std::string why_closed(const HostId& host, const ha::View& view);
// A sentence; empty: there is a datastore of that name.
std::string why_unknown(const std::string& datastore, const ha::View& view);
// `requested_by` of the tasks that move VMs away from `host`.
std::string requester_of(const HostId& host);
// Such a task that has lost its reason: the host is not to be in maintenance any more, or the VM is not there any more.
bool called_off(const record::TaskRecord& task, const ha::View& view);
// The other host, besides the owner, on which a VM in motion has its memory; empty: none.
HostId other_side(const record::MotionRecord& motion, const ha::View& view);

}  // namespace hf::motion
