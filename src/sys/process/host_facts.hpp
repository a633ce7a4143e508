#pragma once
// What this machine is. Read once at the daemon's start. Stateless.
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace hf::process {

struct HostFacts {
  int cpus = 0;                  // this process may use
  std::uint64_t memory_mib = 0;  // of the machine
};
Result<HostFacts> host_facts();
Result<std::uint64_t> parse_memory_mib(std::string_view meminfo);

// "7.2.22" from the first line of `qemu-system-x86_64 --version`.
Result<std::string> parse_qemu_version(std::string_view text);
Result<std::string> qemu_version(const std::string& binary);

// Code::denied, with what to do, unless we run as root.
Status require_root();

// How the memory of a running guest could be tracked here, as a sentence for VmStatus::memory_tracker.
std::string memory_tracker(bool shim_is_preloaded);

}  // namespace hf::process
