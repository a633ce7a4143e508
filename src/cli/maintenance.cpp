// `holdfast host maintenance`: asks for it and watches how far it is.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "cli/commands.hpp"

namespace hf::cli {
namespace {
using nlohmann::json;

std::string path_of(const std::string& host) { return "/v1/hosts/" + api::escape(host); }

bool in_maintenance(const json& host) { return field(host, "maintenance.state") == "in"; }
bool has_maintenance(const json& host) { return !field(host, "maintenance").empty(); }

void say(const Session& session, const json& host, const std::string& sentence) {
  fmt::print("{}\n", session.json() ? host.dump(2) : sentence);
}

// "5 of 8 VMs have moved. It waits for web: ..."
std::string progress(const json& host, std::int64_t all) {
  std::string line = fmt::format("{} of {} VMs have moved.", all - host.value("vms", std::int64_t{0}), all);
  const std::string waits = field(host, "maintenance.message");
  return waits.empty() ? line : line + " " + waits;
}

void enter(Session& session, const std::string& name) {
  const auto before = session.get(path_of(name));
  if (!before.ok()) return session.fail(before.error());
  const auto accepted = session.send("PUT", path_of(name) + "/maintenance", json::object());
  if (!accepted.ok()) return session.fail(accepted.error());
  if (in_maintenance(*before)) return say(session, *accepted, "Host " + name + " is in maintenance already.");
  if (session.no_wait) {
    const std::string already = has_maintenance(*before) ? " already" : "";
    return say(session, *accepted, "Host " + name + " is entering maintenance" + already + ".");
  }
  auto all = before->value("vms", std::int64_t{0});
  std::string told;
  const auto look = [&](const json& host) -> Session::Sight {
    if (in_maintenance(host) || !has_maintenance(host)) return {true, ""};
    all = std::max(all, host.value("vms", std::int64_t{0}));
    const std::string line = progress(host, all);
    const bool tell = !session.terminal.is_terminal && !session.json() && line != std::exchange(told, line);
    if (tell) fmt::print(stderr, "{}\n", printable(line));
    return {false, "Host " + name + ": " + line};
  };
  const std::string leaving = fmt::format("Host {0} goes on entering maintenance. Watch it: holdfast host show {0}.\n"
                                          "Call it off: holdfast host maintenance {0} --leave.", name);
  const auto ended = session.watch(*accepted, path_of(name), look, leaving);
  if (!ended) return;
  if (!has_maintenance(*ended)) {
    return session.fail({Code::conflict, "Somebody else called the maintenance of host " + name + " off."});
  }
  const std::string moved = all == 0   ? "It had no VM."
                            : all == 1 ? "Its VM has left it."
                                       : fmt::format("{} VMs have left it.", all);
  say(session, *ended, fmt::format("Host {} is in maintenance. {}", name, moved));
}

void leave(Session& session, const std::string& name) {
  const auto before = session.get(path_of(name));
  if (!before.ok()) return session.fail(before.error());
  const auto left = session.send("DELETE", path_of(name) + "/maintenance", json::object());
  if (!left.ok()) return session.fail(left.error());
  if (!has_maintenance(*before)) return say(session, *left, "Host " + name + " is not in maintenance.");
  say(session, *left,
      in_maintenance(*before) ? "Host " + name + " has left maintenance and takes VMs again."
                              : "The maintenance of host " + name + " was called off; VMs that are on their way "
                                "still leave it.");
}
}  // namespace

void add_host_maintenance(CLI::App& host, Session& session) {
  auto name = std::make_shared<std::string>();
  auto out = std::make_shared<bool>(false);
  auto* command = host.add_subcommand("maintenance", "Move all VMs off a host and give it none until it leaves");
  command->add_option("HOST", *name, "Name")->required();
  command->add_flag("--leave", *out, "It takes VMs again; also calls off an entry that is under way");
  command->footer(examples({"holdfast host maintenance host1", "holdfast --no-wait host maintenance host1",
                            "holdfast host maintenance host1 --leave"}));
  command->callback([&session, name, out] { *out ? leave(session, *name) : enter(session, *name); });
}

}  // namespace hf::cli
