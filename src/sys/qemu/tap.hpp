#pragma once
// TAP devices, one a NIC. A TAP here is not persistent: it lives as long as QEMU holds its descriptor and
// leaves the bridge by itself, so nothing is left over when QEMU dies. Stateless; works in the calling
// thread's network namespace.
#include <string>
#include <vector>

#include "base/ids.hpp"
#include "base/result.hpp"
#include "sys/process/unique_fd.hpp"

namespace hf::qemu {

// "hf" and 10 hex digits of the VM's id, "-" and the NIC's index: at most 15 characters, the same on every
// start. REQUIRES: index < 100
std::string tap_name(const VmId& vm, std::size_t index);

// The commands that put a bridge's port into a VLAN. Empty for 0 (untagged). Pure.
std::vector<std::vector<std::string>> vlan_plan(const std::string& tap, int vlan);

struct TapRequest {
  std::string name;
  std::string bridge;
  int vlan = 0;
  std::string
      guest_mac;  // the TAP gets it with fe in front: the bridge then never takes a TAP's address as its own
};
// One RARP frame through a TAP that process `qemu` holds, as if its guest, `mac`, had sent it: bridges and switches
// learn that the guest is here. What they send then waits in the TAP until the guest runs.
Status announce(int qemu, const std::string& tap, const std::string& mac);

// Creates the TAP, puts it on the bridge, into the VLAN and up. Its life ends with the descriptor and its duplicates.
// Code::unsupported: the bridge does not filter VLANs.
Result<process::UniqueFd> open_tap(const TapRequest& request);

}  // namespace hf::qemu
