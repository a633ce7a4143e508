#pragma once
// The API relay: makes each host's API reachable on 127.0.0.1 of the machine. One process for the lab; it
// owns a listening socket in the machine's network per host and makes the onward sockets in the host's
// namespace. Bytes pass unread, so TLS goes through. It outlives power cuts of hosts (connections fail
// meanwhile) and ends with the lab.
#include <string>
#include <vector>

#include "base/result.hpp"
#include "lab/layout.hpp"

namespace hf::lab {

// One per host, listening: the wanted ports (`config.api_ports`, else 7443 + host), or the next free ones.
// Sets config.api_ports. Code::no_room if 200 ports in a row are taken.
Result<std::vector<int>> relay_listeners(LabConfig& config);

// The relay process itself; `listeners` are inherited, host 1 first. Returns only with an error.
Status run_relay(const Layout& layout, const std::vector<int>& listeners);

}  // namespace hf::lab
