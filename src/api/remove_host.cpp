// Operations that take a host out of the cluster, and what lets its name come back.
#include "api/inventory.hpp"
#include "api/operations.hpp"
#include "sys/pki/pki.hpp"

namespace hf::api {
namespace key = record::key;

namespace {
Txn::Write put(const std::string& name, const std::string& value) { return {name, value, {}, false}; }
Txn::Write erase(const std::string& name) { return {name, "", {}, true}; }
}  // namespace

Status Operations::remove_host(const std::string& name) {
  return run_write("Host " + name, [&]() -> Result<Txn> {
    TRY_ASSIGN(const auto host, read_or_none<record::HostRecord>(store_, key::kHosts + name));
    if (host.version == 0) {
      if (store_.get(kRemovedHosts + name).ok()) return Txn{};
      return Error{Code::not_found, "There is no host named " + name + ": `holdfast host ls` lists them."};
    }
    // What it owns is looked at last: the conditions tell whether it has come back since.
    TRY_ASSIGN(const auto incarnation,
               read_or_none<record::SessionRecord>(store_, key::kIncarnations + name));
    TRY_ASSIGN(const auto session, read_or_none<record::SessionRecord>(store_, key::kSessions + name));
    if (session.version != 0) {
      return Error{Code::conflict, "Host " + name +
                                       " is connected. On it, first: `systemctl disable --now holdfastd "
                                       "holdfast-guard`."};
    }
    TRY_ASSIGN(const auto vms, list_vms(store_));
    for (const auto& vm : vms) {
      if (!vm.owner || !is_owned(*vm.owner) || vm.owner->host.text != name) continue;
      return Error{Code::conflict,
                   "VM " + vm.vm.spec.name + " is on host " + name +
                       ". Stop it, or wait until it was restarted elsewhere, then remove the host."};
    }
    return Txn{{{host.key, host.version}, {session.key, 0}, {incarnation.key, incarnation.version}},
               {erase(host.key), erase(incarnation.key), erase(key::kMaintenance + name),
                put(kRemovedHosts + name, "keys")}};
  });
}

Status Operations::readmit_host(const std::string& name, const std::string& certificate_pem) {
  TRY_ASSIGN(const std::string fingerprint, pki::key_fingerprint(certificate_pem));
  return run_write("Host " + name, [&]() -> Result<Txn> {
    const auto removed = store_.get(kRemovedHosts + name);
    if (!removed.ok() && removed.code() == Code::not_found) return Txn{};
    if (!removed.ok()) return removed.error();
    return Txn{{{removed->key, removed->version}}, {put(removed->key, removed->value + " " + fingerprint)}};
  });
}

}  // namespace hf::api
