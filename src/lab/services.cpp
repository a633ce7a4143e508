#include "lab/services.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/break_point.hpp"

namespace hf::lab {
namespace {

Service etcd(const Layout& layout, const LabConfig& config, int index) {
  std::string members;
  for (int member = 1; member <= config.hosts; ++member) {
    members +=
        fmt::format("{}{}=http://{}:2380", member > 1 ? "," : "", host_name(member), mgmt_address(member));
  }
  const std::string address = mgmt_address(index);
  return Service{.name = "etcd",
                 .argv = {"etcd",
                          "--name",
                          host_name(index),
                          "--data-dir",
                          layout.host_dir(host_name(index)) + "/var/etcd",
                          "--listen-client-urls",
                          fmt::format("http://{}:2379", address),
                          "--advertise-client-urls",
                          fmt::format("http://{}:2379", address),
                          "--listen-peer-urls",
                          fmt::format("http://{}:2380", address),
                          "--initial-advertise-peer-urls",
                          fmt::format("http://{}:2380", address),
                          "--initial-cluster",
                          members,
                          "--initial-cluster-state",
                          "new",
                          "--initial-cluster-token",
                          "hf-" + config.name,
                          "--heartbeat-interval",
                          "100",
                          "--election-timeout",
                          "1000",
                          "--auto-compaction-mode",
                          "periodic",
                          "--auto-compaction-retention",
                          "10m",
                          "--logger",
                          "zap",
                          "--log-level",
                          "warn"},
                 .environment = {},
                 .nice = -10};
}

// What a service may want to know about its host, beside its arguments.
std::vector<std::pair<std::string, std::string>> environment(const Layout& layout, int index) {
  const std::string host = host_name(index);
  return {{"HOLDFAST_HOST", host},
          {"HOLDFAST_ADDRESS", mgmt_address(index)},
          {"HOLDFAST_MOTION_ADDRESS", motion_address(index)},
          {"HOLDFAST_ETC", layout.host_dir(host) + "/etc"},
          {"HOLDFAST_VAR", layout.host_dir(host) + "/var"},
          {"HOLDFAST_RUN", layout.host_run_dir(host)},
          {kBreakFile, layout.host_run_dir(host) + "/break"},
          {"HOLDFAST_MOUNTS", layout.run_dir() + "/mnt"},
          {"HOLDFAST_CGROUP", layout.cgroup(host)}};
}

}  // namespace

std::vector<Service> services_of(const Layout& layout, const LabConfig& config, int index,
                                 const std::string& program_dir) {
  const auto variables = environment(layout, index);
  if (config.services == ServiceSet::stand_in) {
    return {
        Service{.name = "etcd", .argv = {"sleep", "1000000"}, .environment = variables, .nice = -10},
        Service{.name = "holdfastd",
                .argv = {"busybox", "httpd", "-f", "-p", fmt::format("{}:{}", mgmt_address(index), kApiPort),
                         "-h", layout.host_dir(host_name(index)) + "/etc"},
                .environment = variables}};
  }
  const std::string config_file = layout.host_dir(host_name(index)) + "/etc/config.json";
  return {etcd(layout, config, index),
          Service{.name = "holdfast-guard",
                  .argv = {program_dir + "/holdfast-guard", "--config", config_file},
                  .environment = variables},
          Service{.name = "holdfastd",
                  .argv = {program_dir + "/holdfastd", "--config", config_file},
                  .environment = variables,
                  .nice = -10}};
}

std::string to_json(const std::vector<Service>& services) {
  nlohmann::json list = nlohmann::json::array();
  for (const auto& service : services) {
    nlohmann::json variables = nlohmann::json::object();
    for (const auto& [key, value] : service.environment) variables[key] = value;
    list.push_back(
        {{"name", service.name}, {"argv", service.argv}, {"environment", variables}, {"nice", service.nice}});
  }
  return list.dump(2) + "\n";
}

Result<std::vector<Service>> services_from_json(const std::string& text) {
  const auto list = nlohmann::json::parse(text, nullptr, false);
  std::vector<Service> services;
  try {
    for (const auto& entry : list) {
      Service service{.name = entry.at("name").get<std::string>(),
                      .argv = entry.at("argv").get<std::vector<std::string>>(),
                      .environment = {},
                      .nice = entry.at("nice").get<int>()};
      for (const auto& [key, value] : entry.at("environment").items()) {
        service.environment.emplace_back(key, value.get<std::string>());
      }
      if (service.name.empty() || service.argv.empty())
        return Error{Code::corrupt, "A service without a command."};
      services.push_back(std::move(service));
    }
  } catch (const nlohmann::json::exception& error) {
    return Error{Code::corrupt, fmt::format("services.json cannot be understood: {}.", error.what())};
  }
  return services;
}

}  // namespace hf::lab
