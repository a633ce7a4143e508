#pragma once
// The daemon's configuration file, <etc>/holdfast/config.json: made by `holdfast cluster init` or `join`,
// read by holdfastd and holdfast-guard at start, never written by them. Plain values. An unknown key is an
// error, so that a misspelt one cannot silently mean its default.
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace hf::config {

enum class StoreKind { sqlite, etcd };

struct StoreConfig {
  StoreKind kind = StoreKind::sqlite;
  std::string path = "/var/lib/holdfast/store.db";  // sqlite
  std::vector<std::string> endpoints;               // etcd: "https://10.0.0.1:2379"
  std::string tls_ca, tls_certificate, tls_key;     // etcd: PEM files; all empty: no TLS
  std::string prefix = "/holdfast/";                // etcd: every key stands below it
  bool operator==(const StoreConfig&) const = default;
};

struct PkiConfig {
  std::string ca = "/etc/holdfast/pki/ca.pem";
  std::string certificate = "/etc/holdfast/pki/cert.pem";
  std::string key = "/etc/holdfast/pki/key.pem";
  bool operator==(const PkiConfig&) const = default;
};

struct QemuConfig {
  std::string binary = "qemu-system-x86_64";
  int uid = -1;  // -1: as the daemon
  int gid = -1;
  std::string shim = "/usr/lib/holdfast/libholdfast_shim.so";
  int nice = 0;
  bool operator==(const QemuConfig&) const = default;
};

struct HostConfig {
  std::string host;
  std::string cluster_id;
  std::string api_listen = "0.0.0.0:7443";
  std::string api_advertise;  // how other hosts reach it: "10.0.0.1:7443"
  std::string heartbeat_listen = "0.0.0.0:7444";
  std::string motion_address;  // where VMs in motion come in: "10.0.1.1"; empty: api_advertise's
  std::string motion_ports = "7450-7481";  // one for each that comes in; outside of the kernel's ip_local_port_range
  int heartbeat_ms = 1000;  // the cluster's, as in its ClusterRecord: the guard derives its deadline from it
  StoreConfig store;
  PkiConfig pki;
  std::string run_dir = "/run/holdfast";
  std::string state_dir = "/var/lib/holdfast";
  std::string cgroup_root;  // folder inside a cgroup2 mount; empty: found from /proc/self/mountinfo
  QemuConfig qemu;
  std::uint64_t memory_mib = 0;  // what VMs may use; 0: the machine's less what is set aside
  int cpus = 0;                  // 0: the machine's
  bool operator==(const HostConfig&) const = default;
};

// `source` names the file in errors. Code::invalid with the key's path ("store.kind") and what is wrong with
// it.
Result<HostConfig> parse_config(const std::string& text, const std::string& source);
std::string to_json(const HostConfig& config);
Result<HostConfig> load_config(const std::string& path);
Status save_config(const HostConfig& config, const std::string& path);

}  // namespace hf::config
