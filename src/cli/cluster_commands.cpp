#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/commands.hpp"
#include "cli/init.hpp"
#include "config/store/open_store.hpp"
#include "sys/process/host_facts.hpp"
#include "sys/qemu/accelerator.hpp"
#include "sys/qemu/cpu_models.hpp"

namespace hf::cli {
namespace {
using nlohmann::json;

Result<std::unique_ptr<Store>> open_store(const config::StoreConfig& store) {
  return config::open_store(store);
}

Result<std::vector<etcd::Member>> list_members(const config::StoreConfig& store) {
  TRY_ASSIGN(const auto members, etcd::Members::open(config::etcd_options(store)));
  return members->list_members();
}

Result<record::HostRecord> this_host(const config::HostConfig& config) {
  record::HostRecord host;
  host.host = HostId(config.host);
  host.accelerator = qemu::name_of(qemu::choose_accelerator(qemu::read_kvm_facts()).accelerator);
  TRY_ASSIGN(host.cpu, qemu::host_cpu(config.qemu.binary, host.accelerator));
  return host;
}

struct MakingOptions : InitOptions {
  bool no_start = false;

  std::unique_ptr<InitSystem> services() const {
    return no_start ? no_init_system(own_folder()) : detect_init_system(config_path(), own_folder());
  }
  // What only shows commands may be tried by anybody.
  Status allowed() const { return no_start ? Status() : process::require_root(); }
};

void add_places(CLI::App& command, MakingOptions& options) {
  command.add_option("--etc", options.etc, "Folder of the configuration")->capture_default_str();
  command.add_option("--state-dir", options.state_dir, "Folder for what stays")->capture_default_str();
  command.add_flag("--no-start", options.no_start, "Do not start the services; print how");
}

void add_member_ports(CLI::App& command, InitOptions& options) {
  command.add_option("--client-port", options.client_port, "TCP port of an own etcd member")
      ->capture_default_str();
  command.add_option("--peer-port", options.peer_port, "TCP port of an own etcd member, for the others")
      ->capture_default_str();
}

void add_common(CLI::App& command, MakingOptions& options) {
  command.add_option("--address", options.address, "Address by which the other hosts reach this one")
      ->required();
  add_places(command, options);
  command.add_option("--run-dir", options.run_dir, "Folder for what ends with the machine")
      ->capture_default_str();
  command.add_option("--api-port", options.api_port, "TCP port of the API")->capture_default_str();
  command.add_option("--heartbeat-port", options.heartbeat_port, "UDP port of the heartbeats")
      ->capture_default_str();
  add_member_ports(command, options);
  command
      .add_option("--memory-mib", options.memory_mib, "What VMs may use (0: the machine's, less a reserve)")
      ->capture_default_str();
  command.add_option("--store-ca", options.store_ca,
                     "An existing etcd's CA (PEM; default: the cluster's own)");
  command.add_option("--store-cert", options.store_certificate, "Certificate that an existing etcd accepts");
  command.add_option("--store-key", options.store_key, "Its key");
}

void read_invite(InitOptions& options) {
  if (options.invite.empty() || options.invite == "-") std::getline(std::cin, options.invite);
}

void finish(Session& session, const Result<InitOutcome>& outcome, const std::string& sentence) {
  if (!outcome.ok()) return session.fail(outcome.error());
  for (const auto& note : outcome->notes) fmt::print(stderr, "Note: {}\n", note);
  fmt::print("{}\n", sentence);
}

Result<InitOutcome> init(const MakingOptions& options) {
  TRY(options.allowed());
  TRY(check_ports(options, true, options.store == "etcd"));
  const auto services = options.services();
  return init_cluster(options, {open_store, list_members, *services});
}

Result<InitOutcome> join(MakingOptions options) {
  TRY(options.allowed());
  TRY(check_ports(options, true, false));
  read_invite(options);
  const auto services = options.services();
  return join_cluster(options, {open_store, list_members, *services, this_host});
}

Status grow(const MakingOptions& options) {
  TRY(options.allowed());
  const auto services = options.services();
  return grow_cluster(options, {open_store, list_members, *services});
}

Status witness(MakingOptions options) {
  TRY(options.allowed());
  read_invite(options);
  const auto services = options.services();
  return add_witness(options, {open_store, list_members, *services});
}

void add_making(CLI::App& cluster, Session& session) {
  auto options = std::make_shared<MakingOptions>();
  auto* make = cluster.add_subcommand("init", "Make a cluster of this machine (as root)");
  make->add_option("--name", options->cluster, "Name of the cluster")->capture_default_str();
  make->add_option("--host-name", options->host, "Name of this host (default: the machine's)");
  make->add_option("--store", options->store, "sqlite (one host), etcd (a member here), or etcd=URL,URL")
      ->capture_default_str();
  make->add_option("--heartbeat-ms", options->heartbeat_ms, "The base of all times; every host has the same")
      ->capture_default_str()
      ->check(CLI::Range(10, 60'000));
  add_common(*make, *options);
  make->footer(examples(
      {"holdfast cluster init --address 10.0.0.1", "holdfast cluster init --address 10.0.0.1 --store etcd"}));
  make->callback([&session, options] {
    finish(session, init(*options),
           fmt::format("Cluster {} was made. Its administrator's certificate is in {}/admin: keep a copy in "
                       "a safe place.",
                       options->cluster, options->etc));
  });

  auto* enter = cluster.add_subcommand("join", "Make this machine a host of a cluster (as root)");
  enter->add_option("INVITE", options->invite,
                    "The line that `cluster invite` printed; - or nothing reads it from standard input");
  enter->add_flag("--store-member", options->store_member,
                  "Bring a member of the store (three or five in all)");
  add_common(*enter, *options);
  enter->footer(examples({"holdfast cluster join --address 10.0.0.2 --store-member < invite"}));
  enter->callback(
      [&session, options] { finish(session, join(*options), "This host has joined the cluster."); });
}

void add_growing(CLI::App& cluster, Session& session) {
  auto options = std::make_shared<MakingOptions>();
  auto* more = cluster.add_subcommand(
      "grow",
      "Make a single host's cluster ready for more hosts: its store moves to an etcd member (as root)");
  add_places(*more, *options);
  add_member_ports(*more, *options);
  more->footer(examples({"holdfast cluster grow"}));
  more->callback([&session, options] {
    const Status grown = grow(*options);
    if (!grown.ok()) return session.fail(grown.error());
    fmt::print("The cluster keeps its store in etcd now: `holdfast cluster invite` lets a host join.\n");
  });

  auto* third = cluster.add_subcommand(
      "witness",
      "Make this machine a member of the store and nothing else: the third vote for two hosts (as root)");
  third->add_option("INVITE", options->invite,
                    "The line that `cluster invite` printed; - or nothing reads it from standard input");
  third->add_option("--address", options->address, "Address by which the hosts reach this machine")
      ->required();
  add_places(*third, *options);
  add_member_ports(*third, *options);
  third->footer(examples({"holdfast cluster witness --address 10.0.0.9 < invite"}));
  third->callback([&session, options] {
    const Status added = witness(*options);
    if (!added.ok()) return session.fail(added.error());
    fmt::print("This machine has a vote in the cluster's store now; it runs no VMs.\n");
  });
}

void add_using(CLI::App& cluster, Session& session) {
  auto host = std::make_shared<std::string>();
  auto addresses = std::make_shared<std::vector<std::string>>();
  auto* invite =
      cluster.add_subcommand("invite", "Print an invite for a new host; it is a secret, valid for a day");
  invite->add_option("HOST", *host, "Name of the new host")->required();
  invite->add_option("--address", *addresses, "Addresses of the new host");
  invite->footer(examples({"holdfast cluster invite host2 --address 10.0.0.2 > invite"}));
  invite->callback([&session, host, addresses] {
    const auto made = session.send("POST", "/v1/invites", {{"host", *host}, {"addresses", *addresses}});
    if (!made.ok()) return session.fail(made.error());
    fmt::print("{}\n", session.json() ? made->dump(2) : field(*made, "invite"));
  });
  auto* show = cluster.add_subcommand("show", "Show the cluster");
  show->footer(examples({"holdfast cluster show", "holdfast cluster show -o json"}));
  show->callback([&session] {
    session.show_pairs(session.get("/v1/cluster"), [](const json& one) {
      return std::vector<std::pair<std::string, std::string>>{
          {"Name", field(one, "name")},
          {"Id", field(one, "id")},
          {"Created (UTC)", time_text(one.value("created", WallMs{0}))},
          {"Leader", field(one, "leader")},
          {"Hosts", fmt::format("{}, {} connected", field(one, "hosts"), field(one, "hosts_connected"))},
          {"VMs", fmt::format("{}, {} running", field(one, "vms"), field(one, "vms_running"))},
          {"Heartbeat", field(one, "heartbeat_ms") + " ms"},
          {"CPU baseline", field(one, "evc").empty() ? "none" : field(one, "evc")}};
    });
  });
}

std::string joined(const json& list) {
  std::string text;
  for (const auto& one : list) text += (text.empty() ? "" : ", ") + one.get<std::string>();
  return text;
}

// What stands above the hosts: the baseline, what would be the next and who is in its way.
std::vector<std::string> about_baseline(const json& evc) {
  const std::string model = field(evc, "baseline"), next = field(evc, "next"), best = field(evc, "best");
  std::vector<std::string> lines;
  if (model.empty()) {
    lines.push_back("The cluster has no CPU baseline: a VM that names no CPU model gets what every x86-64-v2 processor "
                    "has.");
    if (!best.empty()) lines.push_back("Every host could give " + best + ": holdfast cluster set --evc auto");
  } else {
    lines.push_back(fmt::format("The CPU baseline is {} ({}{}).", model, field(evc, "title"),
                                evc.value("automatic", false) ? ", chosen by auto" : ""));
  }
  for (const auto& why : evc.at("forced_by")) lines.push_back("Not higher: " + why.get<std::string>());
  if (!model.empty() && !best.empty() && best != model && evc.at("forced_by").empty()) {
    lines.push_back("Every host could give " + best + ": holdfast cluster set --evc auto");
  }
  if (!evc.at("keep").empty()) {
    lines.push_back("VMs that keep another CPU until they are stopped and started: " + joined(evc.at("keep")) + ".");
  }
  return lines;
}

void show_evc(Session& session, const Result<json>& answer) {
  if (!answer.ok()) return session.fail(answer.error());
  if (!session.json()) {
    for (const auto& line : about_baseline(*answer)) fmt::print("{}\n", printable(line));
  }
  session.show(answer, [](const json& evc) {
    Table table{{"HOST", "BEST", "MEETS IT", "HIDDEN FROM GUESTS"}, {}};
    for (const auto& host : evc.at("hosts")) {
      table.rows.push_back({field(host, "host"), field(host, "best"),
                            host.value("meets", false) ? "yes" : "no: " + field(host, "reason"),
                            joined(host.at("hidden"))});
    }
    return table;
  });
}

void add_evc(CLI::App& cluster, Session& session) {
  auto* show = cluster.add_subcommand("evc", "Explain the CPU baseline: what it hides on each host, and who forces it");
  show->footer(examples({"holdfast cluster evc", "holdfast cluster evc -o json"}));
  show->callback([&session] { show_evc(session, session.get("/v1/cluster/evc")); });

  auto baseline = std::make_shared<std::string>();
  auto* set = cluster.add_subcommand("set", "Set what holds for the whole cluster");
  set->add_option("--evc", *baseline,
                  "CPU baseline of VMs that name no model: auto (the best that every host can give), off, or a model "
                  "such as Haswell. VMs that run keep what they see until they are stopped and started")
      ->required();
  set->footer(examples({"holdfast cluster set --evc auto", "holdfast cluster set --evc Haswell",
                        "holdfast cluster set --evc off"}));
  set->callback(
      [&session, baseline] { show_evc(session, session.send("PUT", "/v1/cluster/evc", {{"baseline", *baseline}})); });
}
}  // namespace

void add_cluster_commands(CLI::App& app, Session& session) {
  auto* cluster = app.add_subcommand("cluster", "The cluster");
  cluster->require_subcommand(1);
  add_making(*cluster, session);
  add_growing(*cluster, session);
  add_using(*cluster, session);
  add_evc(*cluster, session);
}

}  // namespace hf::cli
