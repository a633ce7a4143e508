#pragma once
// `cluster init` and `cluster join`: what makes a machine a host. Run locally as root. One thread.
#include <functional>
#include <memory>
#include <string>

#include "base/result.hpp"
#include "cli/context.hpp"
#include "cli/init_system.hpp"
#include "config/config.hpp"
#include "port/store.hpp"

namespace hf::cli {

struct InitOptions {
  std::string cluster = "holdfast";
  std::string host;              // name of this host; default: the machine's
  std::string address;           // by which the other hosts reach this one
  std::string store = "sqlite";  // "sqlite", "etcd" (a member of its own) or "etcd=URL,URL"
  std::string etc = "/etc/holdfast", run_dir = "/run/holdfast", state_dir = "/var/lib/holdfast";
  int api_port = 7443, heartbeat_port = 7444;
  std::uint64_t memory_mib = 0;
  std::string invite;         // join
  bool store_member = false;  // join: bring a member of the store
};

struct InitWorld {
  std::function<Result<std::unique_ptr<Store>>(const config::StoreConfig&)> open_store;
  InitSystem& services;
};

// Makes CA, certificates, config.json and the admin's context, the cluster's first records, and starts the
// services. Code::exists if this machine is a host already. Gives the context's folder.
Result<std::string> init_cluster(const InitOptions& options, const InitWorld& world);
Status join_cluster(const InitOptions& options, const InitWorld& world);

}  // namespace hf::cli
