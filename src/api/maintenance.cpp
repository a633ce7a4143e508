// Operations that put a host into maintenance and take it out: one record; the rest is the leader's (core/motion).
#include "api/operations.hpp"

namespace hf::api {
namespace key = record::key;
using record::MaintenanceRecord;

namespace {
Error no_such_host(const std::string& name) {
  return {Code::not_found, "There is no host named " + name + ": `holdfast host ls` lists them."};
}
}  // namespace

Result<Txn> Operations::plan_maintenance(const std::string& name, const std::string& by) {
  const std::string wanted = key::kMaintenance + name;
  TRY_ASSIGN(const auto host, read_or_none<record::HostRecord>(store_, key::kHosts + name));
  if (host.version == 0) return no_such_host(name);
  TRY_ASSIGN(const auto known, read_or_none<MaintenanceRecord>(store_, wanted));
  if (known.version != 0) return Txn{};
  TRY_ASSIGN(const auto hosts, list_hosts(store_));
  std::string left, others;  // a host that can take VMs; all others that are connected
  for (const auto& one : hosts) {
    if (!one.connected || one.host.host.text == name) continue;
    others = one.host.host.text;
    if (!one.maintenance) left = others;
  }
  if (others.empty()) {
    return Error{Code::conflict, "No other host is connected, so the VMs of " + name +
                                     " have nowhere to go. Bring another host back first."};
  }
  if (left.empty()) {
    return Error{Code::conflict, "Every other host is in maintenance already. Take one out first: `holdfast host "
                                 "maintenance " + others + " --leave`."};
  }
  MaintenanceRecord record;
  record.host = HostId(name);
  record.requested_by = by;
  record.since = world_.now();
  // The host that is left is insisted on: two hosts that enter at once would each count on the other.
  return Txn{{{wanted, 0}, {host.key, host.version}, {key::kMaintenance + left, 0}},
             {{wanted, record::encode(record), {}, false}}};
}

Result<HostView> Operations::enter_maintenance(const std::string& name, const Actor& by) {
  TRY(run_write("Host " + name, [&] { return plan_maintenance(name, by.who); }));
  return show_host(store_, name);
}

Result<HostView> Operations::leave_maintenance(const std::string& name) {
  TRY(run_write("Host " + name, [&]() -> Result<Txn> {
    TRY_ASSIGN(const auto host, read_or_none<record::HostRecord>(store_, key::kHosts + name));
    if (host.version == 0) return no_such_host(name);
    TRY_ASSIGN(const auto known, read_or_none<MaintenanceRecord>(store_, key::kMaintenance + name));
    if (known.version == 0) return Txn{};
    return Txn{{{known.key, known.version}}, {{known.key, "", {}, true}}};
  }));
  return show_host(store_, name);
}

}  // namespace hf::api
