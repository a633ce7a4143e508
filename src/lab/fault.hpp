#pragma once
// What the lab can do to a host, as words: parsing and printing. Pure.
//
//   power                   everything of the host ends at once; cables and storage paths go too
//   hang                    everything of the host stands still; storage paths and cables do not
//   net | net=NETWORK       the cables of all networks, or of mgmt, motion or vm, are pulled at the switch
//   storage | storage=DATASTORE[:apd|pdl]   I/O hangs (apd, the default) or fails (pdl), on all shared
//   datastores or one link=NETWORK:rate=RATE  a slow link, both ways; RATE as tc(8) says it: 10mbit
//   process=NAME[:kill|stop]   the service is killed (its init starts it again) or stopped
#include <string>

#include "base/result.hpp"

namespace hf::lab {

struct Fault {
  enum class Kind { power, hang, net, storage, link, process };
  Kind kind = Kind::power;
  std::string target;  // network, datastore or service; empty: all of them
  std::string mode;    // storage: apd, pdl; link: the rate; process: kill, stop
  bool operator==(const Fault&) const = default;
};

// Code::invalid with the words that are understood.
Result<Fault> parse_fault(const std::string& text);

}  // namespace hf::lab
