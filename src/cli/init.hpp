#pragma once
// `cluster init`, `join`, `grow` and `witness`: what makes machines a cluster. Run locally as root. One thread.
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "cli/context.hpp"
#include "cli/init_system.hpp"
#include "config/config.hpp"
#include "core/record/records.hpp"
#include "port/store.hpp"
#include "sys/etcd/member.hpp"

namespace hf::cli {

struct InitOptions {
  std::string cluster = "holdfast";
  std::string host;              // name of this host; default: the machine's
  std::string address;           // by which the other hosts reach this one
  std::string store = "sqlite";  // "sqlite", "etcd" (a member of its own) or "etcd=URL,URL"
  std::string store_ca, store_certificate, store_key;  // of an existing etcd; empty: the cluster's own
  std::string etc = "/etc/holdfast", run_dir = "/run/holdfast", state_dir = "/var/lib/holdfast";
  int api_port = 7443, heartbeat_port = 7444;
  int client_port = 2379, peer_port = 2380;  // of an own member
  int heartbeat_ms = 1000;
  std::uint64_t memory_mib = 0;
  std::string invite;         // join, witness
  bool store_member = false;  // join: bring a member of the store

  std::string config_path() const { return etc + "/config.json"; }
};

struct InitWorld {
  std::function<Result<std::unique_ptr<Store>>(const config::StoreConfig&)> open_store;
  std::function<Result<std::vector<etcd::Member>>(const config::StoreConfig&)> list_members;
  InitSystem& services;
  // What this machine can give guests, for the cluster's CPU baseline: name, accelerator and CPU of a host's record.
  // None: not looked at.
  std::function<Result<record::HostRecord>(const config::HostConfig&)> this_host = {};
};

struct InitOutcome {
  std::string context;             // init: folder of the administrator's certificate
  std::vector<std::string> notes;  // sentences worth reading
};

// Makes CA, certificates, config.json and the admin's context, the cluster's first records, and starts the
// services. Code::exists if this machine is a host already. Until config.json is there it can be run again.
Result<InitOutcome> init_cluster(const InitOptions& options, const InitWorld& world);
Result<InitOutcome> join_cluster(const InitOptions& options, const InitWorld& world);
// Moves a single host's store from its file to an etcd member of its own; VMs run on. Reads `etc`,
// `client_port`, `peer_port` and `state_dir` of the options. Code::exists: it is etcd already; Code::conflict:
// holdfastd still uses the file.
Status grow_cluster(const InitOptions& options, const InitWorld& world);
// A member of the store and nothing else: the third vote for two hosts.
Status add_witness(const InitOptions& options, const InitWorld& world);

// Are the ports free that init or join would have the services use? Code::conflict names the one that is not.
Status check_ports(const InitOptions& options, bool api, bool member);

}  // namespace hf::cli
