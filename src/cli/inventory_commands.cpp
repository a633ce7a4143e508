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

std::string state_of(const json& host) {
  if (!host.value("connected", false)) return "lost";
  const std::string maintenance = field(host, "maintenance.state");
  return maintenance.empty() ? "connected" : maintenance == "in" ? "maintenance" : "entering maintenance";
}

Table host_table(const json& answer, bool wide) {
  Table table{{"NAME", "STATE", "LEADER", "VMS", "CPUS", "MEMORY USED", "ACCELERATOR"}, {}, 1};
  if (wide) table.head.insert(table.head.end(), {"API", "HEARTBEAT", "QEMU", "VERSION"});
  table.head.emplace_back("MESSAGE");
  for (const auto& host : answer.at("hosts")) {
    std::vector<std::string> row = {
        field(host, "host"),       state_of(host),      host.value("leader", false) ? "yes" : "",
        field(host, "vms"),        field(host, "cpus"), memory_text(host),
        field(host, "accelerator")};
    if (wide) {
      for (const char* name : {"api_address", "heartbeat_address", "qemu_version", "version"})
        row.push_back(field(host, name));
    }
    row.push_back(field(host, "maintenance.message"));
    table.rows.push_back(std::move(row));
  }
  return table;
}

std::vector<std::pair<std::string, std::string>> host_pairs(const json& host) {
  std::vector<std::pair<std::string, std::string>> out = {
      {"Name", field(host, "host")},
      {"State", state_of(host)},
      {"Message", field(host, "maintenance.message")},
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

// Where the hosts stand with a datastore: those that can use it, and the others' reasons.
struct Reach {
  std::string mounted;                                         // "host1, host2"
  std::vector<std::pair<std::string, std::string>> elsewhere;  // host, reason
};

Reach reach_of(const json& datastore, const Result<json>& hosts) {
  Reach reach;
  if (!hosts.ok()) return reach;
  const std::string id = field(datastore, "id");
  const json paths = datastore.value("paths", json::object());
  for (const auto& host : hosts->at("hosts")) {
    const std::string name = field(host, "host");
    if (!paths.contains("*") && !paths.contains(name)) continue;
    const json usable = host.value("datastores", json::object());
    const json problems = host.value("datastore_problems", json::object());
    if (!host.value("connected", false)) {
      reach.elsewhere.emplace_back(name, "the host is not connected");
    } else if (usable.contains(id)) {
      reach.mounted += (reach.mounted.empty() ? "" : ", ") + name;
    } else {
      reach.elsewhere.emplace_back(name, problems.value(id, "not looked at yet"));
    }
  }
  return reach;
}

Table datastore_table(const json& answer, const Result<json>& hosts) {
  Table table{{"NAME", "SHARED", "ID", "PATHS", "MOUNTED", "NOT HERE"}, {}, -1};
  for (const auto& one : answer.at("datastores")) {
    std::string paths;
    const json by_host = one.value("paths", json::object());
    for (const auto& [host, path] : by_host.items()) {
      paths += (paths.empty() ? "" : ", ") + (host == "*" ? "" : host + "=") + path.get<std::string>();
    }
    const Reach reach = reach_of(one, hosts);
    std::string elsewhere;
    for (const auto& [host, reason] : reach.elsewhere) {
      elsewhere += (elsewhere.empty() ? "" : "; ") + host + ": " + reason;
    }
    table.rows.push_back({field(one, "name"), one.value("shared", true) ? "yes" : "no", field(one, "id"),
                          paths, reach.mounted, elsewhere});
  }
  return table;
}

std::vector<std::pair<std::string, std::string>> datastore_pairs(const json& one, const Result<json>& hosts) {
  const Reach reach = reach_of(one, hosts);
  std::vector<std::pair<std::string, std::string>> out = {
      {"Name", field(one, "name")},
      {"Id", field(one, "id")},
      {"Shared", one.value("shared", true) ? "yes" : "no"},
      {"Mounted", reach.mounted}};
  const json paths = one.value("paths", json::object());
  for (const auto& [host, path] : paths.items()) {
    out.emplace_back(host == "*" ? "Path" : "Path on " + host, path.get<std::string>());
  }
  for (const auto& [host, reason] : reach.elsewhere) out.emplace_back("Not on " + host, reason);
  return out;
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

void add_host_remove(CLI::App& host, Session& session) {
  auto name = std::make_shared<std::string>();
  auto* remove =
      host.add_subcommand("remove", "Remove a host that is gone for good, with its member of the store");
  remove->add_option("HOST", *name, "Name")->required();
  remove->footer(examples({"holdfast host remove host3"}));
  remove->callback([&session, name] {
    said(session, session.send("DELETE", "/v1/hosts/" + api::escape(*name), json::object()),
         "Host " + *name + " was removed; its certificate is refused from now on.");
  });
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
  add_host_maintenance(*host, session);
  add_host_remove(*host, session);
}

// {host: path}, "*" for every host that is not named; or what is wrong with it.
Result<json> paths_of(const std::string& path, const std::vector<std::string>& by_host) {
  json paths = json::object();
  if (!path.empty()) paths["*"] = path;
  for (const auto& one : by_host) {
    const auto equals = one.find('=');
    if (equals == std::string::npos || equals == 0) {
      return Error{Code::invalid, "--path is HOST=PATH, as in --path host2=/srv/disks."};
    }
    paths[one.substr(0, equals)] = one.substr(equals + 1);
  }
  if (paths.empty())
    return Error{Code::invalid, "Say where the datastore is mounted: PATH, or --path HOST=PATH."};
  return paths;
}

void add_datastore_add(CLI::App& datastore, Session& session) {
  auto name = std::make_shared<std::string>();
  auto path = std::make_shared<std::string>();
  auto by_host = std::make_shared<std::vector<std::string>>();
  auto local = std::make_shared<bool>(false);
  auto* add =
      datastore.add_subcommand("add", "Make a mounted folder a datastore, or take up one that has been one");
  add->add_option("NAME", *name, "Name")->required();
  add->add_option("PATH", *path, "Where every host has it mounted");
  add->add_option("--path", *by_host, "HOST=PATH: one host has it elsewhere");
  add->add_flag("--local", *local,
                "Not shared: it belongs to one host, the one that --path names or is asked");
  add->footer(examples({"holdfast datastore add shared /srv/shared",
                        "holdfast datastore add shared /srv/shared --path host3=/mnt/shared",
                        "holdfast datastore add fast --local --path host1=/srv/nvme"}));
  add->callback([&session, name, path, by_host, local] {
    const auto paths = paths_of(*path, *by_host);
    if (!paths.ok()) return session.fail(paths.error());
    const json body{{"name", *name}, {"shared", !*local}, {"paths", *paths}};
    const auto answer = session.send("POST", "/v1/datastores", body);
    if (answer.ok() && !field(*answer, "warning").empty()) {
      fmt::print(stderr, "Note: {}\n", field(*answer, "warning"));
    }
    said(session, answer, "Datastore " + *name + " was added.");
  });
}

void add_datastore(CLI::App& app, Session& session) {
  auto* datastore =
      app.add_subcommand("datastore", "Datastores: folders for disks, shared by hosts or local to one");
  datastore->require_subcommand(1);
  add_datastore_add(*datastore, session);
  auto* list = datastore->add_subcommand("ls", "List the datastores and which hosts have them");
  list->footer(examples({"holdfast datastore ls"}));
  list->callback([&session] {
    const auto hosts = session.get("/v1/hosts");
    session.show(session.get("/v1/datastores"),
                 [&hosts](const json& answer) { return datastore_table(answer, hosts); });
  });
  auto name = std::make_shared<std::string>();
  auto* show = datastore->add_subcommand("show", "Show a datastore and which hosts have it");
  show->add_option("NAME", *name, "Name or id")->required();
  show->footer(examples({"holdfast datastore show shared"}));
  show->callback([&session, name] {
    const auto hosts = session.get("/v1/hosts");
    session.show_pairs(session.get("/v1/datastores/" + api::escape(*name)),
                       [&hosts](const json& one) { return datastore_pairs(one, hosts); });
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
