#pragma once
// Placement: which host gets a VM. Pure. Hard conditions first (alive, not in maintenance, room, datastores, networks,
// CPU count, the pinned host); among those that meet them, the one with the largest share of memory left free (then the
// fewest VMs, then the name).
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "core/record/records.hpp"

namespace hf::placement {

struct Candidate {
  const record::HostRecord* host = nullptr;
  std::uint64_t used_mib = 0;  // of VMs that run there or were given to it
  int vms = 0;
  std::string closed = {};     // why it takes none at all, a phrase: "is in maintenance"; empty: it does
};

struct Need {
  std::uint64_t memory_mib = 0;
  int vcpus = 1;
  std::set<std::string> datastores;  // ids
  std::set<std::string> networks;    // names
  std::string pinned_host;
  std::set<std::string> excluded;    // hosts that failed to start it just now
};

// What a VM needs of a host. `datastore_ids`: name -> id; a datastore that is not in it is needed by its name.
Need need_of(const record::VmRecord& vm, const std::map<std::string, std::string>& datastore_ids);

// Every reason why the host cannot take it, each a phrase: "has 512 of 2048 MiB free". Empty: it can.
std::vector<std::string> obstacles(const Candidate& candidate, const Need& need);

// The best host, or Code::no_room with every host's obstacle in one sentence.
Result<HostId> choose(const std::vector<Candidate>& candidates, const Need& need);

}  // namespace hf::placement
