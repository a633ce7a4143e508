#include "lab/cluster_setup.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "api/operations.hpp"
#include "config/config.hpp"
#include "config/store/open_store.hpp"
#include "sys/datastore/datastore.hpp"
#include "sys/pki/pki.hpp"
#include "sys/process/clock.hpp"
#include "sys/process/small_file.hpp"

namespace hf::lab {
namespace {

namespace fs = std::filesystem;
constexpr std::chrono::seconds kStorePatience{60};
constexpr std::chrono::milliseconds kStoreRetry{200};

std::string cluster_id(const LabConfig& config) { return "c-" + config.name; }
std::string ca_file(const Layout& layout) { return layout.dir() + "/ca.json"; }

std::string shim_of(const std::string& program_dir) {
  const std::string built = program_dir + "/../lib/libholdfast_shim.so";
  return fs::exists(built) ? fs::canonical(built).string() : program_dir + "/../lib/holdfast/libholdfast_shim.so";
}

// The user QEMU runs as may not be able to pass through the folders above the build: /root is closed to it.
std::string shim_copy(const Layout& layout) { return layout.dir() + "/libholdfast_shim.so"; }

Status copy_shim(const Layout& layout, const std::string& program_dir) {
  std::error_code failed;
  const std::string shim = shim_of(program_dir);
  fs::copy_file(shim, shim_copy(layout), fs::copy_options::overwrite_existing, failed);
  if (failed) return from_errno("Cannot copy " + shim, failed.value());
  return {};
}

config::HostConfig config_of(const Layout& layout, const LabConfig& lab, int index, const HostFileOptions& options) {
  const std::string name = host_name(index);
  const std::string pki = layout.host_dir(name) + "/etc/pki";
  config::HostConfig config;
  config.host = name;
  config.cluster_id = cluster_id(lab);
  config.api_listen = fmt::format("{}:{}", mgmt_address(index), kApiPort);
  config.api_advertise = config.api_listen;
  config.heartbeat_listen = fmt::format("{}:{}", mgmt_address(index), kApiPort + 1);
  config.motion_address = motion_address(index);
  config.store.kind = config::StoreKind::etcd;
  // Its own member first; the others after it, so that the death of one member is no loss of contact.
  for (int step = 0; step < lab.hosts; ++step) {
    config.store.endpoints.push_back(mgmt_address((index - 1 + step) % lab.hosts + 1) + ":2379");
  }
  config.store.prefix = "/holdfast/" + config.cluster_id + "/";
  config.pki = {pki + "/ca.pem", pki + "/cert.pem", pki + "/key.pem"};
  config.run_dir = layout.host_run_dir(name);
  config.state_dir = layout.host_dir(name) + "/var";
  config.cgroup_root = layout.cgroup(name);
  const auto own = options.qemu_of.find(name);
  config.qemu.binary = own == options.qemu_of.end() ? options.qemu : own->second;
  config.qemu.uid = config.qemu.gid = kQemuUser;
  config.qemu.shim = shim_copy(layout);
  config.qemu.nice = 5;
  config.memory_mib = options.memory_mib;
  return config;
}

Status write_admin(const Layout& layout, const LabConfig& lab, const pki::KeyPair& ca) {
  pki::Credentials admin{ca.certificate_pem, {}};
  TRY_ASSIGN(admin.own, pki::issue(ca, {pki::Role::admin, "admin", {}}));
  TRY(pki::save(admin, admin_context(layout)));
  std::string endpoints;
  for (const int port : lab.api_ports) endpoints += fmt::format("127.0.0.1:{}\n", port);
  return process::replace_file(admin_context(layout) + "/endpoints", endpoints, 0644);
}

Status write_first_records(Store& store, const LabConfig& lab, const pki::KeyPair& ca) {
  record::ClusterRecord cluster;
  cluster.id = cluster_id(lab);
  cluster.name = lab.name;
  cluster.created = sys::wall_ms();
  Txn txn;
  txn.conditions = {{record::key::kCluster, 0}};
  txn.writes = {{record::key::kCluster, record::encode(cluster), {}, false},
                {record::key::kCaSecret, pki::encode_ca(ca), {}, false}};
  const auto deadline = std::chrono::steady_clock::now() + kStorePatience;
  for (;;) {
    auto committed = store.commit(txn);
    if (committed.ok()) return {};
    if (std::chrono::steady_clock::now() > deadline)
      return because("The lab's store does not answer", committed.error());
    std::this_thread::sleep_for(kStoreRetry);
  }
}

// The cluster is there when every host has its session in the store.
Status wait_for_hosts(Store& store, int hosts) {
  const auto deadline = std::chrono::steady_clock::now() + kStorePatience;
  for (;;) {
    auto sessions = store.list(record::key::kSessions);
    if (sessions.ok() && static_cast<int>(sessions->entries.size()) >= hosts) return {};
    if (std::chrono::steady_clock::now() > deadline) {
      return Error{Code::timed_out,
                   "Not every host of the lab came up; `holdfast lab ls` and the logs in var/log say more."};
    }
    std::this_thread::sleep_for(kStoreRetry);
  }
}

Status add_datastore(api::Operations& operations, const std::string& name, bool shared, const std::string& host,
                     const std::string& path, const std::string& marked_at) {
  ha::DatastoreMarker marker;
  if (auto standing = datastore::read_marker(marked_at); standing.ok()) {
    marker = *standing;
  } else {
    marker.id = DatastoreId("ds-" + name);
    marker.name = name;
    marker.created = sys::wall_ms();
    TRY(datastore::make_marker(marked_at, marker));
  }
  record::DatastoreRecord record;
  record.id = marker.id;
  record.name = name;
  record.shared = shared;
  record.paths = {{host, path}};
  auto added = operations.add_datastore(record);
  return added.ok() ? Status() : Status(added.error());
}

}  // namespace

Status write_host_files(const Layout& layout, const LabConfig& lab, const HostFileOptions& options) {
  TRY_ASSIGN(const auto ca, pki::make_ca(lab.name));
  TRY(process::replace_file(ca_file(layout), pki::encode_ca(ca), 0600));
  TRY(copy_shim(layout, options.program_dir));
  for (int index = 1; index <= lab.hosts; ++index) {
    const std::string etc = layout.host_dir(host_name(index)) + "/etc";
    pki::Credentials host{ca.certificate_pem, {}};
    TRY_ASSIGN(host.own, pki::issue(ca, {pki::Role::host, host_name(index), {mgmt_address(index)}}));
    TRY(pki::save(host, etc + "/pki"));
    TRY(config::save_config(config_of(layout, lab, index, options), etc + "/config.json"));
  }
  return write_admin(layout, lab, ca);
}

Status seed_cluster(const Layout& layout, const LabConfig& lab, const std::string& host) {
  TRY_ASSIGN(const auto config, config::load_config(layout.host_dir(host) + "/etc/config.json"));
  TRY_ASSIGN(const std::string ca_text, process::read_small_file(ca_file(layout)));
  TRY_ASSIGN(const auto ca, pki::decode_ca(ca_text));
  TRY_ASSIGN(auto store, config::open_store(config.store));
  TRY(write_first_records(*store, lab, ca));
  api::Operations operations(*store, api::Operations::real_world(HostId(host)));
  for (const auto& name : lab.datastores) {
    TRY(add_datastore(operations, name, true, "*", layout.mount_path(name), layout.mount_path(name)));
  }
  for (int index = 1; index <= lab.hosts; ++index) {
    const std::string name = host_name(index);
    const std::string path = layout.host_dir(name) + "/datastores/" + std::string(kLocalDatastore);
    TRY(add_datastore(operations, "local-" + name, false, name, path, path));
  }
  auto network = operations.add_network({"vm", "vmbr0", 0});
  if (!network.ok()) return network.error();
  return wait_for_hosts(*store, lab.hosts);
}

}  // namespace hf::lab
