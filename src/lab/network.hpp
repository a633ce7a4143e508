#pragma once
// The lab's networks: one namespace with a bridge per network, one namespace per host, links between them.
// All of it is made with ip(8) and tc(8), inside these namespaces only: the machine's own network is not
// touched. Calls block.
#include <map>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "lab/layout.hpp"

namespace hf::lab::network {

Status build(const Layout& layout, const LabConfig& config);
// Every namespace of the lab, whatever was built of it. Succeeds if there is none.
Status remove(const Layout& layout);
bool exists(const Layout& layout);

struct Port {
  bool up = false;
  bool slow = false;
};
// The switch side of every link, by its name (port_name).
Result<std::map<std::string, Port>> ports(const Layout& layout);

// Pulls or plugs the cable at the switch: the host's interface loses its carrier.
Status set_port(const Layout& layout, int index, std::string_view network, bool up);
// Both directions; `rate` in tc's words ("10mbit"). Empty: full speed.
Status set_rate(const Layout& layout, int index, std::string_view network, const std::string& rate);

}  // namespace hf::lab::network
