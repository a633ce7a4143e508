#include "api/inventory.hpp"

#include <algorithm>
#include <map>
#include <set>

#include "sys/pki/pki.hpp"

namespace hf::api {
namespace key = record::key;
using record::OwnerRecord;

template <class Record>
Result<Versioned<Record>> read(Store& store, const std::string& name) {
  TRY_ASSIGN(Entry entry, store.get(name));
  auto decoded = record::decode<Record>(entry.value);
  if (!decoded.ok()) return because("The store's record " + name + " is damaged", decoded.error());
  return Versioned<Record>{entry.key, entry.version, std::move(*decoded)};
}

template <class Record>
Result<Versioned<Record>> read_or_none(Store& store, const std::string& name) {
  auto found = read<Record>(store, name);
  if (!found.ok() && found.code() == Code::not_found) return Versioned<Record>{name, 0, Record{}};
  return found;
}

template <class Record>
Result<std::vector<Versioned<Record>>> read_all(Store& store, const std::string& prefix) {
  TRY_ASSIGN(Snapshot snapshot, store.list(prefix));
  std::vector<Versioned<Record>> out;
  out.reserve(snapshot.entries.size());
  for (auto& entry : snapshot.entries) {
    auto decoded = record::decode<Record>(entry.value);
    if (!decoded.ok()) return because("The store's record " + entry.key + " is damaged", decoded.error());
    out.push_back({std::move(entry.key), entry.version, std::move(*decoded)});
  }
  return out;
}

#define HF_READERS(Record)                                                                             \
  template Result<Versioned<record::Record>> read<record::Record>(Store&, const std::string&);         \
  template Result<Versioned<record::Record>> read_or_none<record::Record>(Store&, const std::string&); \
  template Result<std::vector<Versioned<record::Record>>> read_all<record::Record>(Store&,             \
                                                                                   const std::string&);
HF_READERS(ClusterRecord)
HF_READERS(HostRecord)
HF_READERS(SessionRecord)
HF_READERS(MaintenanceRecord)
HF_READERS(LeaderRecord)
HF_READERS(DatastoreRecord)
HF_READERS(NetworkRecord)
HF_READERS(VmRecord)
HF_READERS(OwnerRecord)
HF_READERS(MotionRecord)
HF_READERS(RelocationRecord)
HF_READERS(VmStatus)
HF_READERS(TaskRecord)
HF_READERS(EventRecord)
#undef HF_READERS

bool is_owned(const OwnerRecord& owner) { return owner.phase != OwnerRecord::Phase::released; }

namespace {
Status add_motion(Store& store, const record::MotionRecord& motion, VmView& view) {
  if (!view.owner || view.owner->host != motion.from) return {};
  TRY_ASSIGN(const auto task, read_or_none<record::TaskRecord>(store, key::kTasks + motion.id.text));
  view.motion = MotionView{motion.id, motion.to, motion.phase, task.record.progress};
  return {};
}
}  // namespace

Result<std::vector<VmView>> list_vms(Store& store) {
  TRY_ASSIGN(const auto vms, read_all<record::VmRecord>(store, key::kVms));
  TRY_ASSIGN(const auto owners, read_all<OwnerRecord>(store, key::kOwners));
  TRY_ASSIGN(const auto statuses, read_all<record::VmStatus>(store, key::kStatus));
  TRY_ASSIGN(const auto motions, read_all<record::MotionRecord>(store, key::kMotions));
  std::map<std::string, VmView> views;
  for (const auto& vm : vms) views[vm.record.id.text].vm = vm.record;
  const auto find = [&views](const std::string& name, const std::string& prefix) {
    const auto found = views.find(name.substr(prefix.size()));
    return found == views.end() ? nullptr : &found->second;
  };
  for (const auto& owner : owners) {
    if (VmView* view = find(owner.key, key::kOwners)) view->owner = owner.record;
  }
  for (const auto& status : statuses) {
    if (VmView* view = find(status.key, key::kStatus)) view->status = status.record;
  }
  for (const auto& motion : motions) {
    if (VmView* view = find(motion.key, key::kMotions)) TRY(add_motion(store, motion.record, *view));
  }
  std::vector<VmView> out;
  for (auto& [id, view] : views) out.push_back(std::move(view));
  std::sort(out.begin(), out.end(),
            [](const VmView& a, const VmView& b) { return a.vm.spec.name < b.vm.spec.name; });
  return out;
}

Result<VmId> find_vm(Store& store, const std::string& name) {
  auto entry = store.get(key::kVmNames + name);
  if (entry.ok()) return VmId(entry->value);
  if (entry.code() != Code::not_found) return entry.error();
  auto by_id = store.get(key::kVms + name);
  if (by_id.ok()) return VmId(name);
  if (by_id.code() != Code::not_found) return by_id.error();
  return Error{Code::not_found, "There is no VM named " + name + ": `holdfast vm ls` lists them."};
}

Result<VmView> show_vm(Store& store, const std::string& name) {
  TRY_ASSIGN(const VmId id, find_vm(store, name));
  VmView view;
  auto vm = read<record::VmRecord>(store, key::kVms + id.text);
  if (!vm.ok() && vm.code() == Code::not_found)
    return Error{Code::not_found, "VM " + name + " was deleted just now."};
  if (!vm.ok()) return vm.error();
  view.vm = std::move(vm->record);
  TRY_ASSIGN(const auto owner, read_or_none<OwnerRecord>(store, key::kOwners + id.text));
  if (owner.version != 0) view.owner = owner.record;
  TRY_ASSIGN(const auto status, read_or_none<record::VmStatus>(store, key::kStatus + id.text));
  if (status.version != 0) view.status = status.record;
  TRY_ASSIGN(const auto motion, read_or_none<record::MotionRecord>(store, key::kMotions + id.text));
  if (motion.version != 0) TRY(add_motion(store, motion.record, view));
  return view;
}

Result<std::vector<HostView>> list_hosts(Store& store) {
  TRY_ASSIGN(const auto hosts, read_all<record::HostRecord>(store, key::kHosts));
  TRY_ASSIGN(const auto sessions, store.list(key::kSessions));
  TRY_ASSIGN(const auto leader, read_or_none<record::LeaderRecord>(store, key::kLeader));
  TRY_ASSIGN(const auto maintenance, read_all<record::MaintenanceRecord>(store, key::kMaintenance));
  TRY_ASSIGN(const auto vms, list_vms(store));
  std::set<std::string> connected;
  for (const auto& session : sessions.entries) connected.insert(session.key.substr(key::kSessions.size()));
  std::vector<HostView> out;
  for (const auto& host : hosts) {
    HostView view;
    view.host = host.record;
    view.connected = connected.contains(host.record.host.text);
    view.leader = leader.version != 0 && leader.record.host == host.record.host;
    for (const auto& vm : vms) {
      if (!vm.owner || !is_owned(*vm.owner) || vm.owner->host != host.record.host) continue;
      ++view.vms;
      view.memory_used_mib += vm.vm.spec.memory_mib;
    }
    // A VM on its way has its memory on both hosts, as the leader counts it.
    for (const auto& vm : vms) {
      if (vm.motion && vm.motion->to == host.record.host) view.memory_used_mib += vm.vm.spec.memory_mib;
    }
    for (const auto& one : maintenance) {
      if (one.record.host == host.record.host) view.maintenance = one.record;
    }
    out.push_back(std::move(view));
  }
  return out;
}

Result<HostView> show_host(Store& store, const std::string& name) {
  TRY_ASSIGN(auto hosts, list_hosts(store));
  for (auto& host : hosts) {
    if (host.host.host.text == name) return std::move(host);
  }
  return Error{Code::not_found, "There is no host named " + name + ": `holdfast host ls` lists them."};
}

Status check_not_removed(Store& store, const std::string& host, const std::string& certificate_pem) {
  const auto removed = store.get(kRemovedHosts + host);
  if (!removed.ok() && removed.code() == Code::not_found) return {};
  if (!removed.ok()) return removed.error();
  TRY_ASSIGN(const std::string shown, pki::key_fingerprint(certificate_pem));
  if (removed->value.find(shown) != std::string::npos) return {};
  return Error{Code::denied, "Host " + host +
                                 " was removed from the cluster. It can join again with a new invite, after "
                                 "`rm -r /etc/holdfast /var/lib/holdfast` on it."};
}

namespace {
template <class Record>
Result<std::vector<Record>> records_of(Store& store, const std::string& prefix) {
  TRY_ASSIGN(auto all, read_all<Record>(store, prefix));
  std::vector<Record> out;
  for (auto& one : all) out.push_back(std::move(one.record));
  return out;
}

template <class Record>
void keep_newest(std::vector<Record>& all, std::size_t limit) {
  if (all.size() > limit) all.erase(all.begin(), all.end() - static_cast<std::ptrdiff_t>(limit));
}
}  // namespace

Result<std::vector<record::DatastoreRecord>> list_datastores(Store& store) {
  TRY_ASSIGN(auto all, records_of<record::DatastoreRecord>(store, key::kDatastores));
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return all;
}

Result<record::DatastoreRecord> show_datastore(Store& store, const std::string& name) {
  TRY_ASSIGN(auto all, list_datastores(store));
  for (auto& one : all) {
    if (one.name == name || one.id.text == name) return std::move(one);
  }
  return Error{Code::not_found,
               "There is no datastore named " + name + ": `holdfast datastore ls` lists them."};
}

Result<std::vector<record::NetworkRecord>> list_networks(Store& store) {
  return records_of<record::NetworkRecord>(store, key::kNetworks);
}

Result<record::NetworkRecord> show_network(Store& store, const std::string& name) {
  auto found = read<record::NetworkRecord>(store, key::kNetworks + name);
  if (found.ok()) return found->record;
  if (found.code() != Code::not_found) return found.error();
  return Error{Code::not_found, "There is no network named " + name + ": `holdfast network ls` lists them."};
}

Result<std::vector<record::TaskRecord>> list_tasks(Store& store, std::size_t limit) {
  TRY_ASSIGN(auto all, records_of<record::TaskRecord>(store, key::kTasks));
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
    return std::pair(a.created, a.id) < std::pair(b.created, b.id);
  });
  keep_newest(all, limit);
  return all;
}

Result<record::TaskRecord> show_task(Store& store, const std::string& id) {
  auto found = read<record::TaskRecord>(store, key::kTasks + id);
  if (found.ok()) return found->record;
  if (found.code() != Code::not_found) return found.error();
  return Error{Code::not_found, "There is no task " + id + ": `holdfast task ls` lists them."};
}

Result<std::vector<record::EventRecord>> list_events(Store& store, const std::string& after,
                                                     std::size_t limit) {
  TRY_ASSIGN(auto all, records_of<record::EventRecord>(store, key::kEvents));
  std::erase_if(all, [&after](const auto& event) { return event.id <= after; });
  keep_newest(all, limit);
  return all;
}

Result<ClusterView> show_cluster(Store& store) {
  ClusterView view;
  auto cluster = read<record::ClusterRecord>(store, key::kCluster);
  if (!cluster.ok() && cluster.code() == Code::not_found) {
    return Error{Code::not_found, "There is no cluster in this store: `holdfast cluster init` makes one."};
  }
  if (!cluster.ok()) return cluster.error();
  view.cluster = std::move(cluster->record);
  TRY_ASSIGN(const auto hosts, list_hosts(store));
  for (const auto& host : hosts) {
    ++view.hosts;
    view.hosts_connected += host.connected ? 1 : 0;
    if (host.leader) view.leader = host.host.host.text;
  }
  TRY_ASSIGN(const auto vms, list_vms(store));
  for (const auto& vm : vms) {
    ++view.vms;
    view.vms_running += vm.status && vm.status->state == record::VmState::running ? 1 : 0;
  }
  return view;
}

Result<EvcView> show_evc(Store& store) {
  TRY_ASSIGN(const auto cluster, read<record::ClusterRecord>(store, key::kCluster));
  TRY_ASSIGN(const auto hosts, records_of<record::HostRecord>(store, key::kHosts));
  TRY_ASSIGN(const auto vms, list_vms(store));
  std::vector<const record::HostRecord*> all;
  for (const auto& host : hosts) all.push_back(&host);
  EvcView view{cpu::explain(cluster.record, all), {}};
  for (const auto& vm : vms) {
    const bool up = vm.owner && vm.owner->phase == OwnerRecord::Phase::claimed;
    const auto host = std::find_if(hosts.begin(), hosts.end(),
                                   [&](const auto& one) { return up && one.host == vm.owner->host; });
    if (host == hosts.end()) continue;
    // Empty: an earlier version started it, which knew no baseline.
    const std::string& noted = vm.owner->cpu;
    const std::string now = noted.empty() ? cpu::option_for(vm.vm.spec, "", host->accelerator) : noted;
    const std::string next = cpu::option_for(vm.vm.spec, cluster.record.evc, host->accelerator);
    if (next != now) view.keep.push_back(vm.vm.spec.name);
  }
  return view;
}

}  // namespace hf::api
