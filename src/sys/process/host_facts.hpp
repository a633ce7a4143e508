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
// `label`: "MemTotal:", "MemAvailable:". Code::corrupt if /proc/meminfo does not have it.
Result<std::uint64_t> parse_memory_mib(std::string_view meminfo, std::string_view label);

// "7.2.22" from the first line of `qemu-system-x86_64 --version`.
Result<std::string> parse_qemu_version(std::string_view text);
Result<std::string> qemu_version(const std::string& binary);

// Code::denied, with what to do, unless we run as root.
Status require_root();

}  // namespace hf::process
