#include "lab/layout.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "lab/files.hpp"

namespace hf::lab {
namespace {
bool is_name(const std::string& text) {
  if (text.empty() || text.size() > 16 || text.front() < 'a' || text.front() > 'z') return false;
  return text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos;
}
}  // namespace

std::string to_json(const LabConfig& config) {
  nlohmann::json json = {{"format", 1},
                         {"name", config.name},
                         {"hosts", config.hosts},
                         {"datastores", config.datastores},
                         {"services", config.services == ServiceSet::product ? "product" : "stand-in"},
                         {"api_ports", config.api_ports}};
  return json.dump(2) + "\n";
}

Result<LabConfig> config_from_json(const std::string& text) {
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object())
    return Error{Code::corrupt, "lab.json is not JSON. Remove the lab with `holdfast lab down`."};
  try {
    LabConfig config;
    config.name = json.at("name").get<std::string>();
    config.hosts = json.at("hosts").get<int>();
    config.datastores = json.at("datastores").get<std::vector<std::string>>();
    config.services = json.at("services") == "product" ? ServiceSet::product : ServiceSet::stand_in;
    config.api_ports = json.at("api_ports").get<std::vector<int>>();
    TRY(check(config));
    return config;
  } catch (const nlohmann::json::exception& error) {
    return Error{Code::corrupt, fmt::format("lab.json cannot be understood: {}.", error.what())};
  }
}

Status check(const LabConfig& config) {
  if (!is_name(config.name) || config.name == "guest") {
    return Error{Code::invalid,
                 fmt::format("\"{}\" cannot be a lab's name: use up to 16 small letters, digits and "
                             "hyphens, a letter first (\"guest\" is taken).",
                             config.name)};
  }
  if (config.hosts < 1 || config.hosts > kHostsMax) {
    return Error{Code::invalid, fmt::format("A lab has 1 to {} hosts, not {}.", kHostsMax, config.hosts)};
  }
  std::set<std::string> seen = {std::string(kLocalDatastore)};
  for (const auto& datastore : config.datastores) {
    if (!is_name(datastore) || !seen.insert(datastore).second) {
      return Error{Code::invalid,
                   fmt::format("\"{}\" cannot be a datastore's name: use each name once, up to 16 small "
                               "letters, digits and hyphens (\"local\" is there already).",
                               datastore)};
    }
  }
  return {};
}

std::string host_name(int index) { return fmt::format("host{}", index); }

int host_index(const LabConfig& config, const std::string& host) {
  for (int index = 1; index <= config.hosts; ++index) {
    if (host_name(index) == host) return index;
  }
  return 0;
}

std::string mgmt_address(int index) { return fmt::format("10.77.0.{}", index); }
std::string motion_address(int index) { return fmt::format("10.77.1.{}", index); }
std::string port_name(int index, std::string_view network) { return fmt::format("h{}-{}", index, network); }

std::string cgroup2_mount(const std::string& mountinfo) {
  std::istringstream lines(mountinfo);
  for (std::string line; std::getline(lines, line);) {
    if (line.find(" - cgroup2 ") == std::string::npos) continue;
    std::istringstream fields(line);
    std::string field;
    for (int number = 0; number < 5 && fields >> field; ++number) {
    }
    return field;
  }
  return {};
}

Result<Layout> layout_of(const std::string& base, const std::string& name) {
  TRY_ASSIGN(std::string mountinfo, process::read_small_file("/proc/self/mountinfo", kMountinfoMax));
  std::string mount = cgroup2_mount(mountinfo);
  if (mount.empty()) {
    return Error{Code::unsupported,
                 "This machine has no cgroup2 mount. Make one: mkdir -p /sys/fs/cgroup && "
                 "mount -t cgroup2 none /sys/fs/cgroup."};
  }
  return Layout{.base = base, .name = name, .cgroup2 = std::move(mount)};
}

}  // namespace hf::lab
