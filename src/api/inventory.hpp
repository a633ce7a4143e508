#pragma once
// Reading the cluster's inventory: typed records with the version each was read at, and the joined views that
// people see. Functions of a Store alone; any thread; never write.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/cpu/evc.hpp"
#include "core/record/records.hpp"
#include "port/store.hpp"

namespace hf::api {

// A record and the version to make a write conditional on. version 0: the key does not exist (record is the
// default).
template <class Record>
struct Versioned {
  std::string key;
  Version version = 0;
  Record record;
};

// REQUIRES (both): Record is one of core/record/records.hpp.
template <class Record>
Result<Versioned<Record>> read(Store& store, const std::string& key);  // Code::not_found
template <class Record>
Result<std::vector<Versioned<Record>>> read_all(Store& store, const std::string& prefix);
// The same, but a missing key is version 0.
template <class Record>
Result<Versioned<Record>> read_or_none(Store& store, const std::string& key);

// A vMotion under way, as people see it: the record also has the token, which is the hosts' alone.
struct MotionView {
  TaskId task;
  HostId to;
  record::MotionRecord::Phase phase = record::MotionRecord::Phase::preparing;
  int progress = 0;  // percent
};

// What people call a VM: the wanted, the owner, the observed and the move, together.
struct VmView {
  record::VmRecord vm;
  std::optional<record::OwnerRecord> owner;
  std::optional<record::VmStatus> status;
  std::optional<MotionView> motion;  // until it has arrived
};

struct HostView {
  record::HostRecord host;
  bool connected = false;  // its session is in the store
  bool leader = false;
  int vms = 0;                        // that it owns
  std::uint64_t memory_used_mib = 0;  // of those VMs, and of those that are on their way to it
  std::optional<record::MaintenanceRecord> maintenance;
};

struct ClusterView {
  record::ClusterRecord cluster;
  std::string leader;  // host name; empty: none now
  int hosts = 0, hosts_connected = 0, vms = 0, vms_running = 0;
};

// The cluster's CPU baseline, explained; `keep`: names of the VMs that run with another CPU, until their next start.
struct EvcView {
  cpu::Explanation told;
  std::vector<std::string> keep;
};

// May this owner's host be running the VM?
bool is_owned(const record::OwnerRecord& owner);

Result<std::vector<HostView>> list_hosts(Store& store);
Result<HostView> show_host(Store& store, const std::string& name);
// removed/<host>: it was removed; whoever shows a certificate of that name is refused but for the keys that are listed
// here, those of later invites ("keys" and their fingerprints).
inline const std::string kRemovedHosts = "removed/";
// Code::denied: the host was removed, and this is a certificate of before.
Status check_not_removed(Store& store, const std::string& host, const std::string& certificate_pem);
Result<std::vector<VmView>> list_vms(Store& store);
// By name or by id.
Result<VmView> show_vm(Store& store, const std::string& name);
Result<VmId> find_vm(Store& store, const std::string& name);
Result<std::vector<record::DatastoreRecord>> list_datastores(Store& store);
Result<record::DatastoreRecord> show_datastore(Store& store, const std::string& name);
Result<std::vector<record::NetworkRecord>> list_networks(Store& store);
Result<record::NetworkRecord> show_network(Store& store, const std::string& name);
// Newest last; at most `limit` of the newest.
Result<std::vector<record::TaskRecord>> list_tasks(Store& store, std::size_t limit);
Result<record::TaskRecord> show_task(Store& store, const std::string& id);
// Ordered by id, which is by time; only those after `after`; at most `limit` of the newest.
Result<std::vector<record::EventRecord>> list_events(Store& store, const std::string& after,
                                                     std::size_t limit);
Result<ClusterView> show_cluster(Store& store);
Result<EvcView> show_evc(Store& store);

}  // namespace hf::api
