#include "daemon/local_services.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "config/store/open_store.hpp"
#include "daemon/member_keeper.hpp"
#include "sys/pki/random.hpp"
#include "daemon/version.hpp"
#include "sys/datastore/call_worker.hpp"
#include "sys/datastore/datastore.hpp"
#include "sys/etcd/member.hpp"
#include "sys/process/clock.hpp"

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
  status.guard_message = guard->contact_fresh
                             ? "This host's right to run VMs is renewed."
                             : "Neither store session nor slot could be renewed: protected VMs stand still.";
  for (const auto& vm : guard->vms) {
    if (vm.state == ha::Guard::State::frozen) status.frozen_vms.push_back(vm.vm.text);
  }
  return status;
}

std::vector<api::TimingRow> LocalServices::timing() {
  std::vector<api::TimingRow> rows;
  for (const auto& row : timing_.table()) {
    rows.push_back(
        {row.name, static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(row.value).count()),
         row.meaning});
  }
  return rows;
}

api::StoreInfo LocalServices::store_info() {
  return {config_.store.kind == config::StoreKind::etcd ? "etcd" : "sqlite", config_.store.endpoints};
}

namespace {
constexpr Duration kMarkPatience = 10s;

// Runs on a thread that may hang with the storage.
Result<api::MarkedDatastore> mark(const std::string& name, const std::string& path, bool shared) {
  struct stat folder{}, parent{};
  if (::stat(path.c_str(), &folder) != 0 || !S_ISDIR(folder.st_mode)) {
    return Error{Code::not_found, path + " is not a folder of this host: mount the datastore there first."};
  }
  api::MarkedDatastore marked;
  auto standing = datastore::read_marker(path);
  if (!standing.ok() && standing.code() != Code::not_found) return standing.error();
  if (::access(path.c_str(), W_OK) != 0) {
    return because("The folder " + path + " cannot be written", from_errno("access", errno));
  }
  if (standing.ok()) {
    marked.id = standing->id;
  } else {
    marked.id = DatastoreId("ds-" + pki::random_hex(6));
    TRY(datastore::make_marker(path, {marked.id, name, sys::wall_ms()}));
  }
  const bool mounted = ::stat((path + "/..").c_str(), &parent) == 0 && parent.st_dev != folder.st_dev;
  if (shared && !mounted) {
    marked.warning = path + " is not a mount point on this host: other hosts see the datastore only if it is shared "
                     "storage. If it is this host's own, say --local.";
  }
  return marked;
}
}  // namespace

Result<api::MarkedDatastore> LocalServices::mark_datastore(const std::string& name, const std::string& path,
                                                           bool shared) {
  datastore::CallWorker worker;
  auto marked = worker.run<api::MarkedDatastore>(kMarkPatience, [=] { return mark(name, path, shared); });
  if (marked.ok() || marked.code() != Code::timed_out) return marked;
  return Error{Code::timed_out, "The storage at " + path + " does not answer on host " + config_.host + "."};
}

Result<api::StoreMember> LocalServices::add_store_member(const std::string& host, const std::string& peer_url) {
  if (peer_url.empty()) return api::StoreMember{};
  if (config_.store.kind != config::StoreKind::etcd) {
    return Error{Code::unsupported,
                 "This host keeps its store in a file; make it a cluster first: holdfast cluster grow."};
  }
  TRY_ASSIGN(auto members, etcd::Members::open(config::etcd_options(config_.store)));
  TRY_ASSIGN(auto all, members->list_members());
  const bool there = std::any_of(all.begin(), all.end(), [&](const auto& one) {
    return std::find(one.peer_urls.begin(), one.peer_urls.end(), peer_url) != one.peer_urls.end();
  });
  if (!there) {
    // A learner: it has no vote until it has caught up (MemberKeeper), so a host that never comes up breaks nothing.
    TRY(members->add_member(peer_url, true));
    TRY_ASSIGN(all, members->list_members());
  }
  TRY_ASSIGN(auto initial, etcd::initial_cluster_of(all, host, peer_url));
  api::StoreMember member;
  for (const auto& [name, url] : initial) {
    member.initial_cluster += (member.initial_cluster.empty() ? "" : ",") + name + "=" + url;
  }
  return member;
}

Status LocalServices::remove_store_member(const std::string& host) {
  if (config_.store.kind != config::StoreKind::etcd) return {};
  TRY_ASSIGN(const auto members, etcd::Members::open(config::etcd_options(config_.store)));
  TRY_ASSIGN(const auto all, members->list_members());
  if (!are_ours(all, config_.store.endpoints)) return {};
  for (const auto& member : all) {
    if (member.name == host) TRY(members->remove_member(member.id));
  }
  return {};
}

}  // namespace hf::daemon
