#pragma once
// What identifies a VM to its guest and its network. Pure.
#include <cstdint>
#include <string>

#include "base/ids.hpp"

namespace hf::vm {

// "52:54:00:xx:xx:xx": QEMU's locally administered prefix and the low 24 of these random bits. Two draws may
// be equal: the caller draws again while another VM has the address.
std::string generate_mac(std::uint64_t random_bits);

// The SMBIOS UUID of a VM: always the same for the same id, so that it outlives restarts without being
// stored. A version 8 UUID (RFC 9562: 122 bits of the maker's choosing) from two FNV-1a hashes of the id,
// each finished with splitmix64. Not secret and not collision-resistant against an attacker; ids are the
// cluster's own.
std::string uuid_of(const VmId& vm);

}  // namespace hf::vm
