#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/commands.hpp"
#include "cli/init.hpp"
#include "config/store/open_store.hpp"

namespace hf::cli {
namespace {
using nlohmann::json;

std::unique_ptr<InitSystem> chosen_services(bool no_start) {
  return no_start ? no_init_system() : detect_init_system();
}

void add_common(CLI::App& command, InitOptions& options, bool& no_start) {
  command.add_option("--address", options.address, "Address by which the other hosts reach this one")
      ->required();
  command.add_option("--etc", options.etc, "Folder of the configuration")->capture_default_str();
  command.add_option("--run-dir", options.run_dir, "Folder for what ends with the machine")
      ->capture_default_str();
  command.add_option("--state-dir", options.state_dir, "Folder for what stays")->capture_default_str();
  command.add_option("--api-port", options.api_port, "TCP port of the API")->capture_default_str();
  command.add_option("--heartbeat-port", options.heartbeat_port, "UDP port of the heartbeats")
      ->capture_default_str();
  command
      .add_option("--memory-mib", options.memory_mib, "What VMs may use (0: the machine's, less a reserve)")
      ->capture_default_str();
  command.add_flag("--no-start", no_start, "Do not start the services; print how");
}

void init(Session& session, const InitOptions& options, bool no_start) {
  const auto services = chosen_services(no_start);
  const auto context = init_cluster(options, {config::open_store, *services});
  if (!context.ok()) return session.fail(context.error());
  fmt::print("Cluster {} was made. Its administrator's certificate is in {}: keep a copy in a safe place.\n",
             options.cluster, *context);
}

void join(Session& session, InitOptions options, bool no_start) {
  if (options.invite.empty() || options.invite == "-") std::getline(std::cin, options.invite);
  const auto services = chosen_services(no_start);
  const Status joined = join_cluster(options, {config::open_store, *services});
  if (!joined.ok()) return session.fail(joined.error());
  fmt::print("This host has joined the cluster.\n");
}

void add_making(CLI::App& cluster, Session& session) {
  auto options = std::make_shared<InitOptions>();
  auto no_start = std::make_shared<bool>(false);
  auto* make = cluster.add_subcommand("init", "Make a cluster of this machine (as root)");
  make->add_option("--name", options->cluster, "Name of the cluster")->capture_default_str();
  make->add_option("--host-name", options->host, "Name of this host (default: the machine's)");
  make->add_option("--store", options->store, "sqlite (one host), etcd (a member here), or etcd=URL,URL")
      ->capture_default_str();
  add_common(*make, *options, *no_start);
  make->footer(examples(
      {"holdfast cluster init --address 10.0.0.1", "holdfast cluster init --address 10.0.0.1 --store etcd"}));
  make->callback([&session, options, no_start] { init(session, *options, *no_start); });

  auto* enter = cluster.add_subcommand("join", "Make this machine a host of a cluster (as root)");
  enter->add_option("INVITE", options->invite,
                    "The line that `cluster invite` printed; - or nothing reads it from standard input");
  enter->add_flag("--store-member", options->store_member,
                  "Bring a member of the store (three or five in all)");
  add_common(*enter, *options, *no_start);
  enter->footer(examples({"holdfast cluster join --address 10.0.0.2 < invite"}));
  enter->callback([&session, options, no_start] { join(session, *options, *no_start); });
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
          {"Heartbeat", field(one, "heartbeat_ms") + " ms"}};
    });
  });
}
}  // namespace

void add_cluster_commands(CLI::App& app, Session& session) {
  auto* cluster = app.add_subcommand("cluster", "The cluster");
  cluster->require_subcommand(1);
  add_making(*cluster, session);
  add_using(*cluster, session);
}

}  // namespace hf::cli
