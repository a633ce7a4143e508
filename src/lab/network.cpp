#include "lab/network.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "lab/command.hpp"
#include "lab/files.hpp"

namespace hf::lab::network {
namespace {

// The host's end of a link; on the VM network it is the uplink of the host's bridge vmbr0.
std::string host_interface(std::string_view network) {
  return network == "vm" ? "uplink0" : fmt::format("{}0", network);
}

Status batch(const std::string& net_name, const std::string& commands) {
  auto done = run({"ip", "-n", net_name, "-batch", "-"}, commands);
  if (!done) return because("Cannot build the network in " + net_name, done.error());
  return {};
}

std::string switch_commands() {
  std::string text = "link set lo up\n";
  for (const auto network : kNetworks) {
    text += fmt::format("link add {0} type bridge forward_delay 0 stp_state 0\nlink set {0} up\n", network);
  }
  text +=
      "addr add 10.77.0.254/24 dev mgmt\naddr add 10.77.1.254/24 dev motion\naddr add 10.78.0.1/16 dev vm\n";
  return text;
}

std::string link_commands(const Layout& layout, int index) {
  std::string text;
  for (const auto network : kNetworks) {
    const std::string port = port_name(index, network);
    text += fmt::format("link add {} type veth peer name {} netns {}\n", port, host_interface(network),
                        layout.net_name(host_name(index)));
    text += fmt::format("link set {} master {} up\n", port, network);
  }
  return text;
}

std::string host_commands(int index) {
  return fmt::format(
      "link set lo up\n"
      "addr add {}/24 dev mgmt0\nlink set mgmt0 up\n"
      "addr add {}/24 dev motion0\nlink set motion0 up\n"
      "link add vmbr0 type bridge forward_delay 0 stp_state 0\n"
      "link set uplink0 master vmbr0 up\nlink set vmbr0 up\n",
      mgmt_address(index), motion_address(index));
}

}  // namespace

Status build(const Layout& layout, const LabConfig& config) {
  TRY(run({"ip", "netns", "add", layout.net_name()}));
  TRY(batch(layout.net_name(), switch_commands()));
  for (int index = 1; index <= config.hosts; ++index) {
    const std::string host_net = layout.net_name(host_name(index));
    TRY(run({"ip", "netns", "add", host_net}));
    TRY(batch(layout.net_name(), link_commands(layout, index)));
    TRY(batch(host_net, host_commands(index)));
  }
  return {};
}

Status remove(const Layout& layout) {
  const std::string prefix = "hf-" + layout.name + "-";
  for (const auto& name : names_in("/run/netns")) {
    const std::string rest = name.starts_with(prefix) ? name.substr(prefix.size()) : "";
    const bool ours =
        rest == "net" || (rest.starts_with("host") && rest.find_first_not_of("0123456789", 4) == rest.npos);
    if (ours) TRY(run({"ip", "netns", "delete", name}));
  }
  return {};
}

bool exists(const Layout& layout) { return lab::exists(Layout::net_file(layout.net_name())); }

Result<std::map<std::string, Port>> ports(const Layout& layout) {
  TRY_ASSIGN(std::string text, run({"ip", "-n", layout.net_name(), "-j", "link", "show"}));
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_array()) return Error{Code::failed, "ip(8) gave something other than JSON."};
  std::map<std::string, Port> found;
  for (const auto& link : json) {
    const auto flags = link.value("flags", std::vector<std::string>{});
    Port port;
    for (const auto& flag : flags) port.up = port.up || flag == "UP";
    port.slow = link.value("qdisc", "") == "tbf";
    found[link.value("ifname", "")] = port;
  }
  return found;
}

Status set_port(const Layout& layout, int index, std::string_view network, bool up) {
  return batch(layout.net_name(),
               fmt::format("link set {} {}\n", port_name(index, network), up ? "up" : "down"));
}

Status set_rate(const Layout& layout, int index, std::string_view network, const std::string& rate) {
  const std::string host_net = layout.net_name(host_name(index));
  for (const auto& [net, interface] : {std::pair{layout.net_name(), port_name(index, network)},
                                       std::pair{host_net, host_interface(network)}}) {
    if (rate.empty()) {
      // There may be none.
      [[maybe_unused]] auto removed = run({"tc", "-n", net, "qdisc", "del", "dev", interface, "root"});
      continue;
    }
    TRY(run({"tc", "-n", net, "qdisc", "replace", "dev", interface, "root", "tbf", "rate", rate, "burst",
             "128kb", "latency", "200ms"}));
  }
  return {};
}

}  // namespace hf::lab::network
