#pragma once
// Names, addresses and paths of a lab: pure functions of its name and of the host's number. Nothing here
// touches the machine. Hosts count from 1: host i is "host<i>", 10.77.0.i on mgmt, 10.77.1.i on motion.
//
//   <base>/<lab>/lab.json                        what was asked for (LabConfig); all else is read from the
//   machine <base>/<lab>/hosts/<host>/{etc,var,datastores}   kept over a power cut; `run` there is a link to
//   the next /run/holdfast-lab/<lab>/<host>/              tmpfs: sockets
//   /run/holdfast-lab/<lab>/mnt/<datastore>      the mount path, the same on all hosts; empty outside their
//   namespaces /run/holdfast-lab/<lab>/ns/<host>            holds the host's mount namespace
//   <cgroup2>/holdfast-lab/<lab>/<host>/{init,services/<name>,vms/<vm>,exec}   everything a power cut ends at
//   once <cgroup2>/holdfast-lab/<lab>/storage/<host>/<datastore>   the path to an array: outside the host
//   <cgroup2>/holdfast-lab/<lab>/relay
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace hf::lab {

inline constexpr int kHostsMax = 32;
inline constexpr std::array<std::string_view, 3> kNetworks = {"mgmt", "motion", "vm"};
inline constexpr std::string_view kLocalDatastore = "local";
inline constexpr int kApiPort = 7443;

// What the hosts run: the product, or small stand-ins for the tests of the lab itself.
enum class ServiceSet { product, stand_in };

struct LabConfig {
  std::string name = "lab";
  int hosts = 3;
  std::vector<std::string> datastores = {"shared1", "shared2"};
  ServiceSet services = ServiceSet::product;
  std::vector<int> api_ports;  // of host 1, 2, ... on 127.0.0.1
};

std::string to_json(const LabConfig& config);
Result<LabConfig> config_from_json(const std::string& text);
// Code::invalid with a sentence.
Status check(const LabConfig& config);

std::string host_name(int index);
// 0: there is no such host.
int host_index(const LabConfig& config, const std::string& host);
std::string mgmt_address(int index);
std::string motion_address(int index);
// The switch side of a host's link: "h2-mgmt".
std::string port_name(int index, std::string_view network);

// The cgroup2 mount, from /proc/self/mountinfo text. Empty: there is none.
std::string cgroup2_mount(const std::string& mountinfo);

struct Layout {
  std::string base;     // /var/lib/holdfast/lab
  std::string name;     // of the lab
  std::string cgroup2;  // where cgroup2 is mounted

  std::string dir() const { return base + "/" + name; }
  std::string config_file() const { return dir() + "/lab.json"; }
  std::string datastore_source(const std::string& datastore) const {
    return dir() + "/datastores/" + datastore;
  }
  std::string host_dir(const std::string& host) const { return dir() + "/hosts/" + host; }
  std::string log_file(const std::string& host, const std::string& what) const {
    return host_dir(host) + "/var/log/" + what + ".log";
  }

  static constexpr std::string_view kRunRoot = "/run/holdfast-lab";
  std::string run_dir() const { return std::string(kRunRoot) + "/" + name; }
  std::string host_run_dir(const std::string& host) const { return run_dir() + "/" + host; }
  std::string mount_path(const std::string& datastore) const { return run_dir() + "/mnt/" + datastore; }
  std::string mount_namespace(const std::string& host) const { return run_dir() + "/ns/" + host; }

  std::string net_name() const { return "hf-" + name + "-net"; }
  std::string net_name(const std::string& host) const { return "hf-" + name + "-" + host; }
  static std::string net_file(const std::string& net_name) { return "/run/netns/" + net_name; }

  std::string cgroup_root() const { return cgroup2 + "/holdfast-lab"; }
  std::string cgroup() const { return cgroup_root() + "/" + name; }
  std::string cgroup(const std::string& host) const { return cgroup() + "/" + host; }
  std::string init_cgroup(const std::string& host) const { return cgroup(host) + "/init"; }
  std::string services_cgroup(const std::string& host) const { return cgroup(host) + "/services"; }
  std::string storage_cgroup(const std::string& host, const std::string& datastore) const {
    return cgroup() + "/storage/" + host + "/" + datastore;
  }
  std::string relay_cgroup() const { return cgroup() + "/relay"; }
};

// Code::unsupported where the machine has no cgroup2.
Result<Layout> layout_of(const std::string& base, const std::string& name);

}  // namespace hf::lab
