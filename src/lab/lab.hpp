#pragma once
// The lab: a cluster of hosts on this machine, made of namespaces, bridges, cgroups and FUSE mounts. It
// changes nothing of the machine's own network. What stands in lab.json is only what was asked for; every
// state is read from the machine, so a command that was interrupted leaves nothing that the next one would
// believe wrongly. All functions block, need root, and are to be called from a process with one thread. Two
// `up` or `down` at a time wait for each other.
#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "lab/fault.hpp"
#include "lab/layout.hpp"

namespace hf::lab {

inline constexpr std::string_view kDefaultBase = "/var/lib/holdfast/lab";

struct LabOptions {
  LabConfig config;
  std::string base = std::string(kDefaultBase);
  std::string program_dir;  // of holdfastd and holdfast-guard; empty: where this program is
  // Runs after the folders of the hosts are made and before anything starts: the place to write configuration
  // files.
  std::function<Status(const Layout&, const LabConfig&)> prepare;
  const std::atomic<bool>* interrupted = nullptr;  // set by a signal: `up` undoes itself
};
using Progress = std::function<void(const std::string& what)>;

struct ServiceState {
  std::string name;
  std::vector<int> pids;
  bool stopped = false;
};
struct HostState {
  enum class Power { on, off, hung };
  std::string name;
  std::string mgmt, motion;  // addresses
  int api_port = 0;          // on 127.0.0.1
  Power power = Power::off;
  std::vector<std::string> cut;       // networks whose cable is pulled
  std::vector<std::string> slow;      // networks with a limited rate
  std::vector<std::string> apd, pdl;  // datastores
  std::vector<ServiceState> services;
};
struct LabState {
  LabConfig config;
  Layout layout;
  bool was_there = false;  // `up` found it and changed nothing
  std::vector<HostState> hosts;
};

// Remains of a lab whose processes are all gone are removed first. Code::exists: it is there with another number of
// hosts. Code::unsupported: programs are missing, with the
// apt-get line. Code::conflict: remains of a lab from before a restart of the machine. Anything that fails
// takes back what was made.
Result<LabState> up(const LabOptions& options, const Progress& progress);
// Everything of the lab goes, also of a half-made one. Succeeds if there is none. The guest image stays.
Status down(const std::string& base, const std::string& name);
// Code::not_found if there is none.
Result<LabState> list(const std::string& base, const std::string& name);

// "host2", "host1,host3" or "all" as names. Code::not_found for a name that is none.
Result<std::vector<std::string>> hosts_named(const LabConfig& config, const std::string& names);
Status inflict(const LabState& lab, const std::string& host, const Fault& fault);
// Undoes every fault of the host and switches it on.
Status heal(const LabState& lab, const std::string& host);

// Runs a command as if on the host ("net": in the lab's own network namespace) on this terminal; its exit
// status. Code::unavailable on a host that is off or hangs.
Result<int> exec(const LabState& lab, const std::string& host, const std::vector<std::string>& argv);

std::string to_json(const LabState& lab);
// The table of `lab ls`.
std::string to_table(const LabState& lab);

}  // namespace hf::lab
