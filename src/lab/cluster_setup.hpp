#pragma once
// Makes the hosts of a lab one cluster: certificates and configuration files before they start, the store's first
// records and the datastores' markers once they run. Blocking.
#include <cstdint>
#include <map>
#include <string>

#include "base/result.hpp"
#include "lab/layout.hpp"

namespace hf::lab {

// The user QEMU runs as in a lab: a number of no account.
inline constexpr int kQemuUser = 64055;

struct HostFileOptions {
  std::string program_dir;             // holdfastd's; the shim is looked for in ../lib beside it
  std::string qemu = "qemu-system-x86_64";
  std::map<std::string, std::string> qemu_of = {};  // hosts that have another one
  std::uint64_t memory_mib = 2048;     // each host's, for VMs
};

// <host>/etc/{config.json,pki} of every host, and <lab>/admin, the context of the CLI.
Status write_host_files(const Layout& layout, const LabConfig& config, const HostFileOptions& options);

// The cluster's first records, its datastores (with markers) and the network "vm". To be called on a running host, in
// its namespaces; waits for the store for a minute. What is there already is left as it is.
Status seed_cluster(const Layout& layout, const LabConfig& config, const std::string& host);

inline std::string admin_context(const Layout& layout) { return layout.dir() + "/admin"; }

}  // namespace hf::lab
