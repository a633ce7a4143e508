#include "cli/init.hpp"

#include <fmt/format.h>
#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "api/client.hpp"
#include "api/operations.hpp"
#include "core/cpu/evc.hpp"
#include "core/ha/timing.hpp"
#include "core/record/level.hpp"
#include "core/record/records.hpp"
#include "port/copy_store.hpp"
#include "port/store_limits.hpp"
#include "sys/pki/pki.hpp"
#include "sys/pki/random.hpp"
#include "sys/process/clock.hpp"

namespace hf::cli {
namespace {
namespace fs = std::filesystem;
namespace key = record::key;
using nlohmann::json;

constexpr const char* kQemuUser = "holdfast-qemu";  // packaging/holdfast.sysusers
constexpr std::chrono::milliseconds kRetry{200};
constexpr std::chrono::seconds kJoinPatience{30};
constexpr std::chrono::seconds kStorePatience{10};

std::string host_name() {
  char name[256] = {};
  ::gethostname(name, sizeof name - 1);
  const std::string full = name;
  return full.substr(0, full.find('.'));
}

// In a build tree and below a prefix it stands beside this program.
std::string shim_path() {
  std::error_code ignored;  // cannot be looked at: not there
  for (const char* place : {"/../lib/libholdfast_shim.so", "/../lib/holdfast/libholdfast_shim.so"}) {
    const fs::path path = own_folder() + place;
    if (fs::exists(path, ignored)) return path.lexically_normal().string();
  }
  return config::QemuConfig{}.shim;
}

// Can every user read the file, and pass through the folders above it?
bool is_open_to_all(fs::path path) {
  std::error_code ignored;  // cannot be looked at: no permissions
  auto wanted = fs::perms::others_read;
  for (; path.has_relative_path(); path = path.parent_path(), wanted = fs::perms::others_exec) {
    if ((fs::status(path, ignored).permissions() & wanted) == fs::perms::none) return false;
  }
  return true;
}

void choose_qemu_user(config::QemuConfig& qemu, std::vector<std::string>& notes) {
  if (const passwd* user = ::getpwnam(kQemuUser); user != nullptr) {
    qemu.uid = static_cast<int>(user->pw_uid);
    qemu.gid = static_cast<int>(user->pw_gid);
    if (is_open_to_all(qemu.shim)) return;
    notes.push_back(fmt::format(
        "The user {} cannot read {}, so no VM will start: install Holdfast (`cmake --install`), or "
        "open the folders above it (chmod o+x).",
        kQemuUser, qemu.shim));
    return;
  }
  notes.push_back(
      fmt::format("There is no user {}, so QEMU will run as root. Make the user (`systemd-sysusers`), set "
                  "qemu.uid and qemu.gid in config.json and restart holdfastd.",
                  kQemuUser));
}

// The configuration that init and join have in common.
Result<config::HostConfig> base_config(const InitOptions& options, std::vector<std::string>& notes) {
  config::HostConfig config;
  config.host = options.host.empty() ? host_name() : options.host;
  TRY(api::check_name("host", config.host));
  if (options.address.empty()) {
    return Error{Code::invalid,
                 "The address by which other hosts reach this one is needed: --address 10.0.0.1."};
  }
  std::error_code problem;
  if (fs::exists(options.config_path(), problem)) {
    return Error{Code::exists, "This machine is a host already: " + options.config_path() + " exists."};
  }
  config.api_listen = fmt::format("0.0.0.0:{}", options.api_port);
  config.api_advertise = fmt::format("{}:{}", options.address, options.api_port);
  config.heartbeat_listen = fmt::format("0.0.0.0:{}", options.heartbeat_port);
  const std::string pki_dir = options.etc + "/pki";
  config.pki = {pki_dir + "/ca.pem", pki_dir + "/cert.pem", pki_dir + "/key.pem"};
  config.run_dir = options.run_dir;
  config.state_dir = options.state_dir;
  config.memory_mib = options.memory_mib;
  config.heartbeat_ms = options.heartbeat_ms;
  config.qemu.shim = shim_path();
  choose_qemu_user(config.qemu, notes);
  config.store.path = options.state_dir + "/store.db";
  return config;
}

void use_etcd(config::HostConfig& config, const InitOptions& options, std::vector<std::string> endpoints) {
  config.store.kind = config::StoreKind::etcd;
  config.store.endpoints = std::move(endpoints);
  config.store.prefix = "/holdfast/" + config.cluster_id + "/";
  const auto& all = config.store.endpoints;
  if (std::none_of(all.begin(), all.end(), [](const auto& one) { return one.starts_with("https://"); }))
    return;
  const auto or_own = [](const std::string& given, const std::string& own) {
    return given.empty() ? own : given;
  };
  config.store.tls_ca = or_own(options.store_ca, config.pki.ca);
  config.store.tls_certificate = or_own(options.store_certificate, config.pki.certificate);
  config.store.tls_key = or_own(options.store_key, config.pki.key);
}

std::string client_url(const std::string& address, int port) {
  return fmt::format("https://{}:{}", address, port);
}

// The etcd member of this host: as root, with the host's own certificate (why: etcd::member_unit).
etcd::MemberConfig etcd_member(const InitOptions& options, const std::string& name,
                               const std::string& token) {
  const std::string pki = options.etc + "/pki";
  const etcd::EtcdTls tls{pki + "/ca.pem", pki + "/cert.pem", pki + "/key.pem"};
  etcd::MemberConfig member;
  member.name = name;
  member.data_dir = options.state_dir + "/etcd";
  member.client_address = fmt::format("{}:{}", options.address, options.client_port);
  member.peer_address = fmt::format("{}:{}", options.address, options.peer_port);
  member.client_tls = tls;
  member.peer_tls = tls;
  member.token = token;
  return member;
}

Status start_member(const etcd::MemberConfig& member, const InitWorld& world) {
  std::error_code failed;
  fs::create_directories(member.data_dir, failed);  // the unit may write there and nowhere else
  if (!failed) fs::permissions(member.data_dir, fs::perms::owner_all, failed);
  if (failed) return from_errno("Cannot make " + member.data_dir, failed.value());
  return world.services.start_member(member);
}

// The first member of a cluster, started and answering.
Status start_first_member(const InitOptions& options, const config::HostConfig& config,
                          const InitWorld& world) {
  auto member = etcd_member(options, config.host, config.cluster_id);
  member.initial_cluster = {{config.host, etcd::peer_url(member.peer_address, true)}};
  return start_member(member, world);
}

// Again and again until `done` says true; its last error if it never does.
Status wait_until(std::chrono::seconds patience, const std::function<Result<bool>()>& done) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  for (;;) {
    auto now = done();
    if (now.ok() && *now) return {};
    const bool lasting = !now.ok() && (now.code() == Code::denied || now.code() == Code::invalid);
    if (lasting || std::chrono::steady_clock::now() > deadline) {
      return now.ok() ? Error{Code::timed_out, "It takes too long."} : now.error();
    }
    std::this_thread::sleep_for(kRetry);
  }
}

// A store that has just been started takes a while; one that others run should be there.
Result<std::unique_ptr<Store>> open_patiently(const config::StoreConfig& store, std::chrono::seconds patience,
                                              const InitWorld& world) {
  TRY_ASSIGN(auto opened, world.open_store(store));
  const Status answers = wait_until(patience, [&]() -> Result<bool> {
    auto seen = opened->get(key::kCluster);
    if (!seen.ok() && seen.code() != Code::not_found) return seen.error();
    return true;
  });
  if (!answers.ok()) return because("The store does not answer", answers.error());
  return opened;
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

Status choose_store(config::HostConfig& config, const InitOptions& options) {
  if (options.store == "etcd")
    use_etcd(config, options, {client_url(options.address, options.client_port)});
  else if (options.store.starts_with("etcd="))
    use_etcd(config, options, split_list(options.store.substr(5)));
  else if (options.store != "sqlite")
    return Error{Code::invalid, "--store is sqlite, etcd or etcd=URL,URL."};
  return {};
}

// What the cluster answered to a machine that joins.
struct Admitted {
  pki::Invite invite;  // with the lasting certificate
  std::map<std::string, std::string> initial_cluster;
};

Result<Admitted> ask_to_join(const InitOptions& options, pki::Invite invite, bool member) {
  const std::string peer = fmt::format("{}:{}", options.address, options.peer_port);
  api::Client client({invite.endpoints, invite.credentials, "", 15s});
  const json body{{"addresses", {options.address}},
                  {"store_peer_url", member ? etcd::peer_url(peer, true) : ""}};
  std::string text;
  // For a while after one member has joined, etcd takes no other; and the daemons start anew to use it.
  TRY(wait_until(kJoinPatience, [&]() -> Result<bool> {
    TRY_ASSIGN(text, client.call("POST", "/v1/members", body.dump()));
    return true;
  }));
  const json answer = json::parse(text, nullptr, false);
  if (!answer.is_object() || !answer.contains("certificate") || !answer["certificate"].is_string()) {
    return Error{Code::corrupt, "The cluster's answer to the join has no certificate."};
  }
  Admitted admitted{std::move(invite), {}};
  admitted.invite.credentials.own.certificate_pem = answer["certificate"].get<std::string>();
  for (const auto& one : split_list(answer.value("initial_cluster", ""))) {
    admitted.initial_cluster[one.substr(0, one.find('='))] = one.substr(one.find('=') + 1);
  }
  if (member && admitted.initial_cluster.empty()) {
    return Error{Code::corrupt, "The cluster's answer to the join does not name the members of the store."};
  }
  return admitted;
}

// Starts a member that the cluster has added as a learner, and waits until the leader has made it a voter.
Status start_joining_member(const InitOptions& options, const Admitted& admitted,
                            const config::StoreConfig& store, const InitWorld& world) {
  auto member = etcd_member(options, admitted.invite.host, admitted.invite.cluster_id);
  member.state = etcd::MemberConfig::State::existing;
  member.initial_cluster = admitted.initial_cluster;
  TRY(start_member(member, world));
  const Status voting = wait_until(world.services.member_patience(), [&]() -> Result<bool> {
    TRY_ASSIGN(const auto members, world.list_members(store));
    return std::any_of(members.begin(), members.end(),
                       [&](const auto& one) { return one.name == member.name && !one.learner; });
  });
  if (voting.ok()) return {};
  return because(
      "The new member of the store does not get its vote. See that it runs and that the hosts reach each "
      "other's ports 2379 and 2380, then run this again",
      voting.error());
}

// Own member first, then every member that votes, then what the invite named.
Result<std::vector<std::string>> all_endpoints(const config::StoreConfig& store, const std::string& own,
                                               const InitWorld& world) {
  std::vector<std::string> all;
  const auto add = [&all](const std::string& one) {
    if (std::find(all.begin(), all.end(), one) == all.end()) all.push_back(one);
  };
  if (!own.empty()) add(own);
  TRY_ASSIGN(const auto members, world.list_members(store));
  bool ours = false;  // members of an etcd that others run may tell their clients anything
  for (const auto& member : members) {
    for (const auto& url : member.client_urls) {
      ours = ours || std::find(store.endpoints.begin(), store.endpoints.end(), url) != store.endpoints.end();
    }
  }
  for (const auto& member : members) {
    if (!ours || member.learner) continue;
    for (const auto& url : member.client_urls) add(url);
  }
  for (const auto& one : store.endpoints) add(one);
  return all;
}

// What an attempt to grow that broke off has left in our own, new member.
Status wipe(Store& store) {
  for (;;) {
    TRY_ASSIGN(const Snapshot left, store.list(""));
    if (left.entries.empty()) return {};
    Txn txn;
    for (const auto& entry : left.entries) {
      if (txn.writes.size() < kTxnKeysMax) txn.writes.push_back({entry.key, "", {}, true});
    }
    TRY(store.commit(txn));
  }
}

// Returns once config.json names the new store, or the old one still holds.
Status switch_store(const InitOptions& options, const config::HostConfig& before,
                    const config::HostConfig& after, const InitWorld& world) {
  // safety: open until the switch: a daemon that is started meanwhile cannot write what the copy would miss.
  TRY_ASSIGN(const auto old_store, world.open_store(before.store));
  TRY(start_first_member(options, after, world));
  TRY_ASSIGN(const auto new_store, open_patiently(after.store, world.services.member_patience(), world));
  // Nobody uses the new one yet: config.json still names the file.
  TRY(wipe(*new_store));
  TRY(copy_store(*old_store, *new_store));
  return config::save_config(after, options.config_path());
}
}  // namespace

Result<InitOutcome> init_cluster(const InitOptions& options, const InitWorld& world) {
  InitOutcome outcome;
  TRY(world.services.check_installed());
  TRY_ASSIGN(config::HostConfig config, base_config(options, outcome.notes));
  TRY(ha::Timing::from_heartbeat(std::chrono::milliseconds(options.heartbeat_ms)).validate());
  config.cluster_id = "c-" + pki::random_hex(6);
  TRY(choose_store(config, options));
  TRY_ASSIGN(const pki::KeyPair ca, pki::make_ca(options.cluster));
  pki::Credentials host{ca.certificate_pem, {}};
  TRY_ASSIGN(host.own, pki::issue(ca, {pki::Role::host, config.host, {options.address}}));
  pki::Credentials admin{ca.certificate_pem, {}};
  TRY_ASSIGN(admin.own, pki::issue(ca, {pki::Role::admin, "admin", {}}));
  TRY(pki::save(host, options.etc + "/pki"));
  outcome.context = options.etc + "/admin";
  TRY(save_context({{config.api_advertise}, admin}, outcome.context));
  const bool own_member = options.store == "etcd";
  if (own_member) TRY(start_first_member(options, config, world));
  {
    const auto patience = own_member ? world.services.member_patience() : kStorePatience;
    TRY_ASSIGN(const auto store, open_patiently(config.store, patience, world));
    TRY(write_first_records(*store,
                            {config.cluster_id, options.cluster, sys::wall_ms(), options.heartbeat_ms}, ca));
  }  // closed: an SQLite store has one process
  // Last: until it is there, init can be run again.
  TRY(config::save_config(config, options.config_path()));
  TRY(world.services.start_daemons(options.config_path()));
  return outcome;
}

// A host whose daemon would not start there need not join, nor one that cannot give the cluster's CPU baseline and
// would be given no VM. One that cannot tell is let in, and says so itself.
Status check_cluster(const config::HostConfig& config, const pki::Invite& invite, const InitWorld& world) {
  api::Client client({invite.endpoints, invite.credentials, "", 15s});
  TRY_ASSIGN(const std::string text, client.call("GET", "/v1/cluster", ""));
  const json cluster = json::parse(text, nullptr, false);
  if (!cluster.is_object()) return Error{Code::corrupt, "The cluster's answer is none about a cluster."};
  TRY(record::check_level(cluster.value("level", 1)));
  if (!world.this_host) return {};
  const std::string baseline = cluster.value("evc", "");
  const auto here = world.this_host(config);
  if (baseline.empty() || !here.ok()) return {};
  const std::string why = cpu::why_below(*here, baseline);
  if (why.empty()) return {};
  return Error{Code::unsupported,
               fmt::format("This machine cannot join: it {}. Lower the baseline first (`holdfast cluster set --evc "
                           "MODEL`; this machine can give {}).", why,
                           cpu::best_for({&*here}).ok() ? *cpu::best_for({&*here}) : "none")};
}

Result<InitOutcome> join_cluster(const InitOptions& options, const InitWorld& world) {
  InitOutcome outcome;
  TRY(world.services.check_installed());
  TRY_ASSIGN(const pki::Invite invite, pki::decode_invite(options.invite, sys::wall_ms()));
  InitOptions named = options;
  named.host = invite.host;
  TRY_ASSIGN(config::HostConfig config, base_config(named, outcome.notes));
  config.cluster_id = invite.cluster_id;
  TRY(check_cluster(config, invite, world));
  TRY_ASSIGN(const Admitted admitted, ask_to_join(options, invite, options.store_member));
  TRY(pki::save(admitted.invite.credentials, options.etc + "/pki"));
  use_etcd(config, options, invite.store_endpoints);
  if (options.store_member) TRY(start_joining_member(options, admitted, config.store, world));
  const std::string own = options.store_member ? client_url(options.address, options.client_port) : "";
  TRY_ASSIGN(config.store.endpoints, all_endpoints(config.store, own, world));
  {
    TRY_ASSIGN(const auto store, open_patiently(config.store, kStorePatience, world));
    TRY_ASSIGN(const Entry entry, store->get(key::kCluster));
    TRY_ASSIGN(const auto cluster, record::decode<record::ClusterRecord>(entry.value));
    // safety: this host's guard freezes by the heartbeat that the others take over by.
    config.heartbeat_ms = cluster.heartbeat_ms;
  }
  TRY(config::save_config(config, options.config_path()));
  TRY(world.services.start_daemons(options.config_path()));
  return outcome;
}

Status add_witness(const InitOptions& options, const InitWorld& world) {
  TRY_ASSIGN(const pki::Invite invite, pki::decode_invite(options.invite, sys::wall_ms()));
  std::error_code ignored;  // cannot be looked at: not there
  if (fs::exists(options.config_path(), ignored)) {
    return Error{Code::exists, "This machine is a host, " + options.config_path() +
                                   " exists; a witness is a machine that runs no VMs."};
  }
  TRY_ASSIGN(const Admitted admitted, ask_to_join(options, invite, true));
  TRY(pki::save(admitted.invite.credentials, options.etc + "/pki"));
  config::HostConfig config;
  config.cluster_id = invite.cluster_id;
  config.pki = {options.etc + "/pki/ca.pem", options.etc + "/pki/cert.pem", options.etc + "/pki/key.pem"};
  use_etcd(config, options, invite.store_endpoints);
  return start_joining_member(options, admitted, config.store, world);
}

Status grow_cluster(const InitOptions& options, const InitWorld& world) {
  TRY_ASSIGN(const config::HostConfig before, config::load_config(options.config_path()));
  if (before.store.kind == config::StoreKind::etcd) {
    return Error{Code::exists,
                 "This cluster keeps its store in etcd already: `holdfast cluster invite` lets a host join."};
  }
  std::error_code failed;
  if (!fs::exists(before.store.path, failed)) {
    return Error{Code::not_found,
                 "The store " + before.store.path + " that config.json names does not exist."};
  }
  InitOptions here = options;
  here.state_dir = before.state_dir;
  here.address =
      before.api_advertise.substr(0, before.api_advertise.rfind(':'));  // what the certificate names
  config::HostConfig after = before;
  use_etcd(after, here, {client_url(here.address, here.client_port)});
  TRY_ASSIGN(const bool stopped, world.services.stop_daemon());
  if (const Status moved = switch_store(here, before, after, world); !moved.ok()) {
    const Status again = stopped ? world.services.start_daemons(options.config_path()) : Status();
    return because(again.ok() ? "Nothing was changed" : "Nothing was changed, but holdfastd does not start",
                   moved.error());
  }
  // The file is kept, under a name that nobody opens.
  fs::rename(before.store.path, before.store.path + ".before-grow", failed);
  return world.services.restart_daemons(options.config_path());
}

}  // namespace hf::cli
