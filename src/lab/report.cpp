// How a lab is shown: the table and the JSON of `lab ls`.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "lab/lab.hpp"

namespace hf::lab {
namespace {

const char* name_of(HostState::Power power) {
  switch (power) {
    case HostState::Power::on:
      return "on";
    case HostState::Power::off:
      return "off";
    case HostState::Power::hung:
      return "hung";
  }
  return "";
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const auto& word : words) text += (text.empty() ? "" : ",") + word;
  return text;
}

// "on, net cut (mgmt), apd (shared1)"; a host without power has no cables to speak of.
std::string state_of(const HostState& host) {
  std::string text = name_of(host.power);
  if (host.power == HostState::Power::off) return text;
  if (!host.cut.empty()) text += fmt::format(", net cut ({})", joined(host.cut));
  if (!host.slow.empty()) text += fmt::format(", slow ({})", joined(host.slow));
  if (!host.apd.empty()) text += fmt::format(", apd ({})", joined(host.apd));
  if (!host.pdl.empty()) text += fmt::format(", pdl ({})", joined(host.pdl));
  return text;
}

std::string services_of(const HostState& host) {
  std::string text;
  for (const auto& service : host.services) {
    text += fmt::format("{}{}", text.empty() ? "" : " ", service.name);
    text += service.pids.empty()
                ? "(-)"
                : fmt::format("({}{})", service.pids.front(), service.stopped ? ", stopped" : "");
  }
  return text;
}

}  // namespace

std::string to_json(const LabState& lab) {
  nlohmann::json hosts = nlohmann::json::array();
  for (const auto& host : lab.hosts) {
    nlohmann::json services = nlohmann::json::array();
    for (const auto& service : host.services) {
      services.push_back({{"name", service.name}, {"pids", service.pids}, {"stopped", service.stopped}});
    }
    hosts.push_back({{"name", host.name},
                     {"mgmt", host.mgmt},
                     {"motion", host.motion},
                     {"api_port", host.api_port},
                     {"power", name_of(host.power)},
                     {"cut", host.cut},
                     {"slow", host.slow},
                     {"apd", host.apd},
                     {"pdl", host.pdl},
                     {"services", services}});
  }
  const nlohmann::json json = {{"name", lab.config.name},
                               {"folder", lab.layout.dir()},
                               {"mounts", lab.layout.run_dir() + "/mnt"},
                               {"datastores", lab.config.datastores},
                               {"hosts", hosts}};
  return json.dump(2) + "\n";
}

std::string to_table(const LabState& lab) {
  std::string text = fmt::format("{:<8} {:<12} {:<12} {:<15} {:<32} {}\n", "HOST", "MGMT", "MOTION", "API",
                                 "STATE", "SERVICES");
  for (const auto& host : lab.hosts) {
    text += fmt::format("{:<8} {:<12} {:<12} {:<15} {:<32} {}\n", host.name, host.mgmt, host.motion,
                        fmt::format("127.0.0.1:{}", host.api_port), state_of(host), services_of(host));
  }
  return text;
}

}  // namespace hf::lab
