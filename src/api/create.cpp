// Operations that bring something new into the inventory, and the checks they share: names, references, room.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "api/operations_target.hpp"
#include "core/vm/identity.hpp"

namespace hf::api {
namespace key = record::key;
using record::TaskKind;
using record::TaskRecord;
using record::VmRecord;

namespace {
Txn::Write put(const std::string& name, const std::string& value) { return {name, value, {}, false}; }

// The datastore of "<datastore>:<path>"; empty for an absolute path.
std::string datastore_of(const std::string& location) {
  const auto colon = location.find(':');
  return location.empty() || location.front() == '/' || colon == std::string::npos
             ? ""
             : location.substr(0, colon);
}

std::set<std::string> disk_datastores(const vm::VmSpec& spec) {
  std::set<std::string> names;
  if (!spec.datastore.empty()) names.insert(spec.datastore);
  for (const auto& disk : spec.disks) {
    if (!disk.datastore.empty()) names.insert(disk.datastore);
  }
  return names;
}

std::set<std::string> all_datastores(const vm::VmSpec& spec) {
  std::set<std::string> names = disk_datastores(spec);
  for (const auto& cdrom : spec.cdroms) names.insert(datastore_of(cdrom.image));
  if (spec.direct_kernel) {
    names.insert(datastore_of(spec.direct_kernel->kernel));
    names.insert(datastore_of(spec.direct_kernel->initrd));
  }
  names.erase("");
  return names;
}

bool imports(const vm::VmSpec& spec) {
  return std::any_of(spec.disks.begin(), spec.disks.end(),
                     [](const auto& disk) { return !disk.import_from.empty(); });
}
}  // namespace

// Everything the spec names exists, and stays so until the Txn: each found record becomes a condition.
Status Operations::check_new(const vm::VmSpec& spec, const VmId& self, Txn& txn) {
  TRY(vm::validate(spec));
  TRY_ASSIGN(const auto datastores, read_all<record::DatastoreRecord>(store_, key::kDatastores));
  for (const auto& name : all_datastores(spec)) {
    const auto found = std::find_if(datastores.begin(), datastores.end(),
                                    [&](const auto& one) { return one.record.name == name; });
    if (found == datastores.end()) {
      return Error{Code::not_found,
                   fmt::format("VM {} names datastore {}, which does not exist: `holdfast datastore ls` "
                               "lists them.",
                               spec.name, name)};
    }
    txn.conditions.push_back({found->key, found->version});
  }
  std::set<std::string> networks;
  for (const auto& nic : spec.nics) networks.insert(nic.network);
  for (const auto& name : networks) {
    TRY_ASSIGN(const auto found, read_or_none<record::NetworkRecord>(store_, key::kNetworks + name));
    if (found.version == 0) {
      return Error{Code::not_found,
                   fmt::format("VM {} names network {}, which does not exist: `holdfast network ls` "
                               "lists them.",
                               spec.name, name)};
    }
    txn.conditions.push_back({found.key, found.version});
  }
  const auto holder = store_.get(key::kVmNames + spec.name);
  if (holder.ok() && holder->value != self.text) {
    return Error{Code::exists, "There is a VM named " + spec.name + " already: choose another name."};
  }
  if (!holder.ok() && holder.code() != Code::not_found) return holder.error();
  return check_fits_some_host(spec);
}

// Two VMs that are made at the same moment are not seen here; 24 random bits make a clash of theirs unlikely
// enough.
Status Operations::fill_macs(vm::VmSpec& spec, const VmId& self) {
  TRY_ASSIGN(const auto vms, read_all<VmRecord>(store_, key::kVms));
  std::map<std::string, std::string> taken;
  for (const auto& vm : vms) {
    if (vm.record.id == self) continue;
    for (const auto& nic : vm.record.spec.nics) taken[nic.mac] = vm.record.spec.name;
  }
  for (auto& nic : spec.nics) {
    if (!nic.mac.empty() && taken.contains(nic.mac)) {
      return Error{Code::exists,
                   fmt::format("VM {} has the MAC address {} already.", taken[nic.mac], nic.mac)};
    }
    while (nic.mac.empty() || taken.contains(nic.mac)) {
      nic.mac = vm::generate_mac(std::stoull(world_.random_hex().substr(0, 6), nullptr, 16));
    }
    taken[nic.mac] = spec.name;
  }
  return {};
}

Status Operations::check_fits_some_host(const vm::VmSpec& spec) {
  TRY_ASSIGN(const auto hosts, read_all<record::HostRecord>(store_, key::kHosts));
  const auto largest = std::max_element(hosts.begin(), hosts.end(), [](const auto& a, const auto& b) {
    return a.record.memory_mib < b.record.memory_mib;
  });
  if (largest == hosts.end() || largest->record.memory_mib >= spec.memory_mib) return {};
  return Error{Code::no_room,
               fmt::format("No host can hold {} MiB; the largest, {}, has {} MiB for VMs.", spec.memory_mib,
                           largest->record.host.text, largest->record.memory_mib)};
}

Status Operations::check_start_room(const VmRecord& vm, const std::string& host) {
  TRY_ASSIGN(auto hosts, list_hosts(store_));
  if (!host.empty()) {
    std::erase_if(hosts, [&](const auto& one) { return one.host.host.text != host; });
    if (hosts.empty())
      return Error{Code::not_found, "There is no host named " + host + ": `holdfast host ls` lists them."};
    if (!hosts.front().connected)
      return Error{Code::unavailable, "Host " + host + " is not connected to the cluster now."};
    if (hosts.front().maintenance) {
      return Error{Code::conflict, "Host " + host + " is in maintenance: it is given no VM until it leaves it."};
    }
  }
  std::erase_if(hosts, [](const auto& one) { return !one.connected || one.maintenance; });
  if (hosts.empty()) {
    return Error{Code::unavailable, "No host is connected to the cluster now that is not in maintenance."};
  }
  const auto free = [](const HostView& one) {
    return one.host.memory_mib > one.memory_used_mib ? one.host.memory_mib - one.memory_used_mib : 0;
  };
  const auto most = std::max_element(hosts.begin(), hosts.end(),
                                     [&](const auto& a, const auto& b) { return free(a) < free(b); });
  if (free(*most) >= vm.spec.memory_mib) return {};
  if (!host.empty()) {
    return Error{Code::no_room, fmt::format("Host {} has {} MiB free; VM {} needs {} MiB.", host, free(*most),
                                            vm.spec.name, vm.spec.memory_mib)};
  }
  return Error{Code::no_room, fmt::format("No host has {} MiB free; {} has most with {} MiB.",
                                          vm.spec.memory_mib, most->host.host.text, free(*most))};
}

// This host if it can, else the first connected one that has all the datastores of the disks mounted.
Result<HostId> Operations::host_with_datastores(const vm::VmSpec& spec, const std::string& wanted) {
  const std::set<std::string> names = disk_datastores(spec);
  if (names.empty() && wanted.empty()) return world_.here;
  TRY_ASSIGN(const auto datastores, list_datastores(store_));
  std::vector<std::string> ids;
  for (const auto& one : datastores) {
    if (names.contains(one.name)) ids.push_back(one.id.text);
  }
  TRY_ASSIGN(const auto hosts, list_hosts(store_));
  HostId chosen;
  for (const auto& host : hosts) {
    const bool able = std::all_of(ids.begin(), ids.end(),
                                  [&](const auto& id) { return host.host.datastores.contains(id); });
    if (!able || !(host.connected || host.host.host == world_.here)) continue;
    if (!wanted.empty() && host.host.host.text != wanted) continue;
    if (chosen.empty() || host.host.host == world_.here) chosen = host.host.host;
  }
  if (!chosen.empty()) return chosen;
  std::string list;
  for (const auto& name : names) list += (list.empty() ? "" : ", ") + name;
  return Error{Code::unavailable,
               fmt::format("{} has datastore {} mounted now; `holdfast datastore show` says where it is.",
                           wanted.empty() ? "No connected host"
                                          : "Host " + wanted + " is not connected or not the one that",
                           list)};
}

Result<Operations::Plan> Operations::plan_create(vm::VmSpec spec, const std::string& import_host,
                                                 const Actor& by) {
  Plan plan;
  TRY(check_new(spec, VmId(), plan.txn));
  TRY(fill_macs(spec, VmId()));
  VmRecord vm;
  vm.id = VmId("vm-" + world_.random_hex().substr(0, 12));
  vm.spec = std::move(spec);
  vm.spec.home_tag.clear();
  for (auto& disk : vm.spec.disks) disk.tag.clear();
  vm.generation = 1;
  vm.created = world_.now();
  const bool import = imports(vm.spec);
  plan.task = new_task(import ? TaskKind::vm_import : TaskKind::vm_create, vm, by);
  const std::string image_host = import && import_host.empty() ? world_.here.text : import_host;
  TRY_ASSIGN(plan.task.host, host_with_datastores(vm.spec, image_host));
  vm.active_task = plan.task.id;
  for (const auto& name :
       {key::kVmNames + vm.spec.name, key::kVms + vm.id.text, key::kTasks + plan.task.id.text}) {
    plan.txn.conditions.push_back({name, 0});
  }
  plan.txn.writes = {put(key::kTasks + plan.task.id.text, record::encode(plan.task)),
                     put(key::kVmNames + vm.spec.name, vm.id.text),
                     put(key::kVms + vm.id.text, record::encode(vm))};
  return plan;
}

Result<TaskRecord> Operations::create_vm(const vm::VmSpec& spec, const std::string& import_host,
                                         const Actor& by) {
  const TaskKind kind = imports(spec) ? TaskKind::vm_import : TaskKind::vm_create;
  return run_task("VM " + spec.name, kind, by, [&] { return plan_create(spec, import_host, by); });
}

Result<VmRecord> Operations::edit_vm(const std::string& name, const vm::VmSpec& wanted,
                                     std::uint64_t generation) {
  VmRecord changed;
  const auto attempt = [&]() -> Result<Txn> {
    TRY_ASSIGN(const Target target, load(name));
    TRY(require_legal(vm::Command::edit, target));
    const VmRecord& vm = target.vm.record;
    if (generation != 0 && generation != vm.generation) {
      return Error{Code::conflict,
                   "VM " + name + " was edited by somebody else meanwhile: look at it and edit again."};
    }
    changed = vm;
    changed.spec = wanted;
    changed.generation += 1;
    // Where its files are is not the user's word.
    changed.spec.home_tag = vm.spec.home_tag;
    for (auto& disk : changed.spec.disks) {
      const auto same = std::find_if(vm.spec.disks.begin(), vm.spec.disks.end(),
                                     [&](const auto& before) { return before.name == disk.name; });
      disk.tag = same == vm.spec.disks.end() ? std::string() : same->tag;
    }
    // A NIC that stays where it was keeps its address.
    auto& nics = changed.spec.nics;
    for (std::size_t i = 0; i < nics.size() && i < vm.spec.nics.size(); ++i) {
      if (nics[i].mac.empty() && nics[i].network == vm.spec.nics[i].network)
        nics[i].mac = vm.spec.nics[i].mac;
    }
    TRY(vm::check_edit(vm.spec, changed.spec));
    Txn txn{{{target.vm.key, target.vm.version}, {target.owner.key, target.owner.version}}, {}};
    TRY(check_new(changed.spec, vm.id, txn));
    TRY(fill_macs(changed.spec, vm.id));
    if (!vm::has_same_hardware(vm.spec, changed.spec)) changed.hardware = changed.generation;
    txn.writes.push_back(put(target.vm.key, record::encode(changed)));
    return txn;
  };
  TRY(run_write("VM " + name, attempt));
  return changed;
}

Status Operations::check_datastore(const record::DatastoreRecord& wanted) {
  TRY(check_name("datastore", wanted.name));
  if (wanted.paths.empty()) return Error{Code::invalid, "A datastore needs the path where it is mounted."};
  for (const auto& [host, path] : wanted.paths) {
    if (path.empty() || path.front() != '/')
      return Error{Code::invalid, "The path \"" + path + "\" is not absolute."};
  }
  return {};
}

Result<record::DatastoreRecord> Operations::add_datastore(record::DatastoreRecord wanted) {
  TRY(check_datastore(wanted));
  if (wanted.id.empty()) wanted.id = DatastoreId("ds-" + world_.random_hex().substr(0, 12));
  const auto attempt = [&]() -> Result<Txn> {
    TRY_ASSIGN(const auto all, read_all<record::DatastoreRecord>(store_, key::kDatastores));
    for (const auto& one : all) {
      if (one.record.name != wanted.name && one.record.id == wanted.id) {
        return Error{Code::exists, "This datastore is in the cluster already, as " + one.record.name + "."};
      }
      if (one.record.name != wanted.name) continue;
      if (one.record.shared != wanted.shared || one.record.paths != wanted.paths) {
        return Error{Code::exists, "There is another datastore named " + wanted.name + " already."};
      }
      wanted.id = one.record.id;
      return Txn{};
    }
    const std::string name_key = key::kDatastoreNames + wanted.name;
    return Txn{
        {{name_key, 0}},
        {put(key::kDatastores + wanted.id.text, record::encode(wanted)), put(name_key, wanted.id.text)}};
  };
  TRY(run_write("Datastore " + wanted.name, attempt));
  return wanted;
}

Result<record::NetworkRecord> Operations::add_network(const record::NetworkRecord& wanted) {
  TRY(check_name("network", wanted.name));
  if (wanted.bridge.empty() || wanted.bridge.size() > 15 ||
      wanted.bridge.find_first_of(" /:\t\n") != std::string::npos) {
    return Error{Code::invalid, "A network needs the name of a Linux bridge (1 to 15 characters)."};
  }
  if (wanted.vlan < 0 || wanted.vlan > 4094)
    return Error{Code::invalid, "A VLAN is 1 to 4094, or 0 for none."};
  const auto attempt = [&]() -> Result<Txn> {
    TRY_ASSIGN(const auto found, read_or_none<record::NetworkRecord>(store_, key::kNetworks + wanted.name));
    if (found.version != 0 && found.record == wanted) return Txn{};
    if (found.version != 0)
      return Error{Code::exists, "There is another network named " + wanted.name + " already."};
    return Txn{{{found.key, 0}}, {put(found.key, record::encode(wanted))}};
  };
  TRY(run_write("Network " + wanted.name, attempt));
  return wanted;
}

}  // namespace hf::api
