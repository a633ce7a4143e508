#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "cli/commands.hpp"

namespace hf::cli {
namespace {
using nlohmann::json;

std::string join(const json& list) {
  std::string out;
  for (const auto& item : list)
    out += (out.empty() ? "" : ", ") + (item.is_string() ? item.get<std::string>() : item.dump());
  return out;
}

std::string memory_text(const json& host) {
  return fmt::format("{} of {}", size_text(host.value("memory_used_mib", std::uint64_t{0})),
                     size_text(host.value("memory_mib", std::uint64_t{0})));
}

std::string state_of(const json& host) { return host.value("connected", false) ? "connected" : "lost"; }

Table host_table(const json& answer, bool wide) {
  Table table{{"NAME", "STATE", "LEADER", "VMS", "CPUS", "MEMORY USED", "ACCELERATOR"}, {}, 1};
  if (wide) table.head.insert(table.head.end(), {"API", "HEARTBEAT", "QEMU", "VERSION"});
  for (const auto& host : answer.at("hosts")) {
    std::vector<std::string> row = {
        field(host, "host"),       state_of(host),      host.value("leader", false) ? "yes" : "",
        field(host, "vms"),        field(host, "cpus"), memory_text(host),
        field(host, "accelerator")};
    if (wide) {
      for (const char* name : {"api_address", "heartbeat_address", "qemu_version", "version"})
        row.push_back(field(host, name));
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

std::vector<std::pair<std::string, std::string>> host_pairs(const json& host) {
  std::vector<std::pair<std::string, std::string>> out = {
      {"Name", field(host, "host")},
      {"State", state_of(host)},
      {"Leader", host.value("leader", false) ? "yes" : "no"},
      {"VMs", field(host, "vms")},
      {"CPUs", field(host, "cpus")},
      {"Memory used", memory_text(host)},
      {"Accelerator", field(host, "accelerator")},
      {"Not kvm because", field(host, "accelerator_reason")},
      {"QEMU", field(host, "qemu_version")},
      {"Version", field(host, "version")},
      {"API address", field(host, "api_address")},
      {"Heartbeat address", field(host, "heartbeat_address")},
      {"Networks", join(host.value("networks", json::array()))}};
  const json datastores = host.value("datastores", json::object());
  for (const auto& [id, path] : datastores.items()) {
    out.emplace_back("Datastore " + id, path.get<std::string>());
  }
  return out;
}

Table datastore_table(const json& answer) {
  Table table{{"NAME", "SHARED", "ID", "PATHS"}, {}, -1};
  for (const auto& one : answer.at("datastores")) {
    std::string paths;
    const json by_host = one.value("paths", json::object());
    for (const auto& [host, path] : by_host.items()) {
      paths += (paths.empty() ? "" : ", ") + (host == "*" ? "" : host + ":") + path.get<std::string>();
    }
    table.rows.push_back(
        {field(one, "name"), one.value("shared", true) ? "yes" : "no", field(one, "id"), paths});
  }
  return table;
}

Table network_table(const json& answer) {
  Table table{{"NAME", "BRIDGE", "VLAN"}, {}, -1};
  for (const auto& one : answer.at("networks")) {
    const int vlan = one.value("vlan", 0);
    table.rows.push_back({field(one, "name"), field(one, "bridge"), vlan == 0 ? "" : std::to_string(vlan)});
  }
  return table;
}

void said(Session& session, const Result<json>& answer, const std::string& sentence) {
  if (!answer.ok()) return session.fail(answer.error());
  fmt::print("{}\n", session.json() ? answer->dump(2) : sentence);
}

void add_host(CLI::App& app, Session& session) {
  auto* host = app.add_subcommand("host", "Hosts");
  host->require_subcommand(1);
  auto* list = host->add_subcommand("ls", "List the hosts");
  list->footer(examples({"holdfast host ls", "holdfast host ls -o wide"}));
  list->callback([&session] {
    session.show(session.get("/v1/hosts"),
                 [&session](const json& answer) { return host_table(answer, session.wide()); });
  });
  auto name = std::make_shared<std::string>();
  auto* show = host->add_subcommand("show", "Show a host");
  show->add_option("HOST", *name, "Name")->required();
  show->footer(examples({"holdfast host show host1"}));
  show->callback(
      [&session, name] { session.show_pairs(session.get("/v1/hosts/" + api::escape(*name)), host_pairs); });
}

void add_datastore(CLI::App& app, Session& session) {
  auto* datastore =
      app.add_subcommand("datastore", "Datastores: folders for disks, shared by hosts or local to one");
  datastore->require_subcommand(1);
  auto name = std::make_shared<std::string>();
  auto paths = std::make_shared<std::vector<std::string>>();
  auto local = std::make_shared<bool>(false);
  auto* add = datastore->add_subcommand("add", "Make a mounted folder a datastore");
  add->add_option("NAME", *name, "Name")->required();
  add->add_option("PATH", *paths, "Where it is mounted; HOST:PATH for one host only")->required();
  add->add_flag("--local", *local, "Not shared: each host has its own");
  add->footer(examples(
      {"holdfast datastore add shared /srv/shared", "holdfast datastore add fast host1:/srv/nvme --local"}));
  add->callback([&session, name, paths, local] {
    json body{{"name", *name}, {"shared", !*local}, {"paths", json::object()}};
    for (const auto& one : *paths) {
      const auto colon = one.find(':');
      const bool named = !one.starts_with('/') && colon != std::string::npos;
      body["paths"][named ? one.substr(0, colon) : "*"] = named ? one.substr(colon + 1) : one;
    }
    said(session, session.send("POST", "/v1/datastores", body), "Datastore " + *name + " was added.");
  });
  auto* list = datastore->add_subcommand("ls", "List the datastores");
  list->footer(examples({"holdfast datastore ls"}));
  list->callback([&session] { session.show(session.get("/v1/datastores"), datastore_table); });
  auto* show = datastore->add_subcommand("show", "Show a datastore and which hosts have it");
  show->add_option("NAME", *name, "Name or id")->required();
  show->footer(examples({"holdfast datastore show shared"}));
  show->callback([&session, name] {
    const auto one = session.get("/v1/datastores/" + api::escape(*name));
    const auto hosts = session.get("/v1/hosts");
    session.show_pairs(one, [&hosts](const json& datastore_json) {
      std::vector<std::pair<std::string, std::string>> out = {
          {"Name", field(datastore_json, "name")},
          {"Id", field(datastore_json, "id")},
          {"Shared", datastore_json.value("shared", true) ? "yes" : "no"}};
      const json list_json = hosts.ok() ? hosts->at("hosts") : json::array();
      for (const auto& host : list_json) {
        const json mounted = host.value("datastores", json::object());
        const std::string path = mounted.value(field(datastore_json, "id"), std::string());
        out.emplace_back("On " + field(host, "host"), path.empty() ? "not usable now" : path);
      }
      return out;
    });
  });
}

void add_network(CLI::App& app, Session& session) {
  auto* network = app.add_subcommand("network", "Networks: Linux bridges that VMs join");
  network->require_subcommand(1);
  auto name = std::make_shared<std::string>();
  auto bridge = std::make_shared<std::string>();
  auto vlan = std::make_shared<int>(0);
  auto* add = network->add_subcommand("add", "Name a bridge that the hosts have");
  add->add_option("NAME", *name, "Name")->required();
  add->add_option("--bridge", *bridge, "Linux bridge, the same on every host")->required();
  add->add_option("--vlan", *vlan, "VLAN of it, 1 to 4094")->check(CLI::Range(0, 4094));
  add->footer(
      examples({"holdfast network add lan --bridge br0", "holdfast network add dmz --bridge br0 --vlan 20"}));
  add->callback([&session, name, bridge, vlan] {
    const json body{{"name", *name}, {"bridge", *bridge}, {"vlan", *vlan}};
    said(session, session.send("POST", "/v1/networks", body), "Network " + *name + " was added.");
  });
  auto* list = network->add_subcommand("ls", "List the networks");
  list->footer(examples({"holdfast network ls"}));
  list->callback([&session] { session.show(session.get("/v1/networks"), network_table); });
}
}  // namespace

void add_inventory_commands(CLI::App& app, Session& session) {
  add_host(app, session);
  add_datastore(app, session);
  add_network(app, session);
}

}  // namespace hf::cli
