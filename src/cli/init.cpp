#include "cli/init.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "api/client.hpp"
#include "api/operations.hpp"
#include "core/record/records.hpp"
#include "sys/etcd/member.hpp"
#include "sys/pki/files.hpp"
#include "sys/pki/pki.hpp"
#include "sys/pki/random.hpp"
#include "sys/process/clock.hpp"

namespace hf::cli {
namespace {
namespace key = record::key;
using nlohmann::json;

std::string host_name() {
  char name[256] = {};
  ::gethostname(name, sizeof name - 1);
  const std::string full = name;
  return full.substr(0, full.find('.'));
}

// The configuration that init and join have in common.
Result<config::HostConfig> base_config(const InitOptions& options) {
  config::HostConfig config;
  config.host = options.host.empty() ? host_name() : options.host;
  TRY(api::check_name("host", config.host));
  if (options.address.empty()) {
    return Error{Code::invalid,
                 "The address by which other hosts reach this one is needed: --address 10.0.0.1."};
  }
  std::error_code problem;
  if (std::filesystem::exists(options.etc + "/config.json", problem)) {
    return Error{Code::exists, "This machine is a host already: " + options.etc + "/config.json exists."};
  }
  config.api_listen = fmt::format("0.0.0.0:{}", options.api_port);
  config.api_advertise = fmt::format("{}:{}", options.address, options.api_port);
  config.heartbeat_listen = fmt::format("0.0.0.0:{}", options.heartbeat_port);
  const std::string pki_dir = options.etc + "/pki";
  config.pki = {pki_dir + "/ca.pem", pki_dir + "/cert.pem", pki_dir + "/key.pem"};
  config.run_dir = options.run_dir;
  config.state_dir = options.state_dir;
  config.memory_mib = options.memory_mib;
  config.store.path = options.state_dir + "/store.db";
  return config;
}

void use_etcd(config::HostConfig& config, std::vector<std::string> endpoints) {
  config.store.kind = config::StoreKind::etcd;
  config.store.endpoints = std::move(endpoints);
  config.store.prefix = "/holdfast/" + config.cluster_id + "/";
  const bool tls = !config.store.endpoints.empty() && config.store.endpoints.front().starts_with("https://");
  if (tls) {
    config.store.tls_ca = config.pki.ca;
    config.store.tls_certificate = config.pki.certificate;
    config.store.tls_key = config.pki.key;
  }
}

// The etcd member of this host. Its key is the host's own, which only root reads.
etcd::MemberConfig etcd_member(const InitOptions& options, const config::HostConfig& config,
                               const std::map<std::string, std::string>& cluster) {
  const etcd::EtcdTls tls{config.pki.ca, config.pki.certificate, config.pki.key};
  etcd::MemberConfig member;
  member.user = "root";
  member.name = config.host;
  member.data_dir = options.state_dir + "/etcd";
  member.client_address = options.address + ":2379";
  member.peer_address = options.address + ":2380";
  member.client_tls = tls;
  member.peer_tls = tls;
  member.initial_cluster = cluster;
  member.token = config.cluster_id;
  return member;
}

Status start_daemons(const InitOptions& options, const InitWorld& world) {
  TRY(world.services.start("holdfast-guard", guard_unit(options.etc + "/config.json")));
  return world.services.start("holdfastd", daemon_unit(options.etc + "/config.json"));
}

Status write_first_records(Store& store, const record::ClusterRecord& cluster, const pki::KeyPair& ca) {
  Txn txn;
  txn.conditions = {{key::kCluster, 0}, {key::kCaSecret, 0}};
  txn.writes = {{key::kCluster, record::encode(cluster), {}, false},
                {key::kCaSecret, pki::encode_ca(ca), {}, false}};
  auto committed = store.commit(txn);
  if (!committed.ok() && committed.code() == Code::outcome_unknown) {
    TRY_ASSIGN(const Entry entry, store.get(key::kCluster));
    if (entry.value == record::encode(cluster)) return {};
  }
  if (!committed.ok()) return because("The cluster's first records cannot be written", committed.error());
  if (!committed->done) {
    return Error{Code::exists,
                 "The store holds a cluster already: join it with an invite of one of its hosts."};
  }
  return {};
}
}  // namespace

Result<std::string> init_cluster(const InitOptions& options, const InitWorld& world) {
  TRY_ASSIGN(config::HostConfig config, base_config(options));
  config.cluster_id = "c-" + pki::random_hex(6);
  const bool own_etcd = options.store == "etcd";
  if (own_etcd)
    use_etcd(config, {fmt::format("https://{}:2379", options.address)});
  else if (options.store.starts_with("etcd="))
    use_etcd(config, split_list(options.store.substr(5)));
  else if (options.store != "sqlite")
    return Error{Code::invalid, "--store is sqlite, etcd or etcd=URL,URL."};
  TRY_ASSIGN(const pki::KeyPair ca, pki::make_ca(options.cluster));
  pki::Credentials host{ca.certificate_pem, {}};
  TRY_ASSIGN(host.own, pki::issue(ca, {pki::Role::host, config.host, {options.address}}));
  pki::Credentials admin{ca.certificate_pem, {}};
  TRY_ASSIGN(admin.own, pki::issue(ca, {pki::Role::admin, "admin", {}}));
  TRY(pki::save(host, options.etc + "/pki"));
  const std::string context = options.etc + "/admin";
  TRY(save_context({{config.api_advertise}, admin}, context));
  if (own_etcd) {
    const std::string peer = etcd::peer_url(options.address + ":2380", true);
    const auto member = etcd_member(options, config, {{config.host, peer}});
    TRY(world.services.start("holdfast-etcd", etcd::member_unit(member)));
  }
  {
    TRY_ASSIGN(const auto store, world.open_store(config.store));
    TRY(write_first_records(*store, {config.cluster_id, options.cluster, sys::wall_ms(), 1000}, ca));
  }  // closed: an SQLite store has one process
  // Last: until it is there, init can be run again.
  TRY(config::save_config(config, options.etc + "/config.json"));
  TRY(start_daemons(options, world));
  return context;
}

Status join_cluster(const InitOptions& options, const InitWorld& world) {
  TRY_ASSIGN(pki::Invite invite, pki::decode_invite(options.invite, sys::wall_ms()));
  InitOptions named = options;
  named.host = invite.host;
  TRY_ASSIGN(config::HostConfig config, base_config(named));
  config.cluster_id = invite.cluster_id;
  api::Client client({invite.endpoints, invite.credentials, "", 15s});
  const std::string peer = options.store_member ? etcd::peer_url(options.address + ":2380", true) : "";
  const json body{{"addresses", {options.address}}, {"store_peer_url", peer}};
  TRY_ASSIGN(const std::string text, client.call("POST", "/v1/members", body.dump()));
  const json answer = json::parse(text, nullptr, false);
  if (!answer.is_object() || !answer.contains("certificate") || !answer["certificate"].is_string()) {
    return Error{Code::corrupt, "The cluster's answer to the join has no certificate."};
  }
  invite.credentials.own.certificate_pem = answer["certificate"].get<std::string>();
  TRY(pki::save(invite.credentials, options.etc + "/pki"));
  use_etcd(config, invite.store_endpoints);
  if (options.store_member) {
    std::map<std::string, std::string> cluster;
    for (const auto& one : split_list(answer.value("initial_cluster", ""))) {
      cluster[one.substr(0, one.find('='))] = one.substr(one.find('=') + 1);
    }
    auto member = etcd_member(options, config, cluster);
    member.state = etcd::MemberConfig::State::existing;
    TRY(world.services.start("holdfast-etcd", etcd::member_unit(member)));
    config.store.endpoints.insert(config.store.endpoints.begin(),
                                  fmt::format("https://{}:2379", options.address));
  }
  TRY(config::save_config(config, options.etc + "/config.json"));
  return start_daemons(options, world);
}

}  // namespace hf::cli
