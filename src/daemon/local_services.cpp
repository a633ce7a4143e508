#include "daemon/local_services.hpp"

#include "daemon/version.hpp"
#include "sys/etcd/member.hpp"
#include "config/store/open_store.hpp"

namespace hf::daemon {

api::LocalStatus LocalServices::local_status() {
  api::LocalStatus status;
  status.version = kVersion;
  status.store_contact = control_.status().store_contact;
  auto guard = guard_.status();
  if (!guard.ok()) {
    status.guard = "absent";
    status.guard_message = guard.error().what;
    return status;
  }
  status.guard = guard->contact_fresh ? "renewing" : "frozen";
  status.guard_message = guard->contact_fresh ? "This host's right to run VMs is renewed."
                                              : "Neither store session nor slot could be renewed: protected VMs stand still.";
  for (const auto& vm : guard->vms) {
    if (vm.state == ha::Guard::State::frozen) status.frozen_vms.push_back(vm.vm.text);
  }
  return status;
}

std::vector<api::TimingRow> LocalServices::timing() {
  std::vector<api::TimingRow> rows;
  for (const auto& row : timing_.table()) {
    rows.push_back({row.name, static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(row.value).count()),
                    row.meaning});
  }
  return rows;
}

api::StoreInfo LocalServices::store_info() {
  return {config_.store.kind == config::StoreKind::etcd ? "etcd" : "sqlite", config_.store.endpoints};
}

Result<api::StoreMember> LocalServices::add_store_member(const std::string& host, const std::string& peer_url) {
  if (peer_url.empty()) return api::StoreMember{};
  if (config_.store.kind != config::StoreKind::etcd) {
    return Error{Code::unsupported, "This host keeps its store in a file; make it a cluster first: holdfast cluster grow."};
  }
  TRY_ASSIGN(auto members, etcd::Members::open(config::etcd_options(config_.store)));
  TRY(members->add_member(peer_url, false));
  TRY_ASSIGN(auto all, members->list_members());
  TRY_ASSIGN(auto initial, etcd::initial_cluster_of(all, host, peer_url));
  api::StoreMember member;
  for (const auto& [name, url] : initial) {
    member.initial_cluster += (member.initial_cluster.empty() ? "" : ",") + name + "=" + url;
  }
  return member;
}

}  // namespace hf::daemon
