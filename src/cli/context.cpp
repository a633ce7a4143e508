#include "cli/context.hpp"

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "sys/process/small_file.hpp"

namespace hf::cli {
namespace {
std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

const std::string kAdmin = "/etc/holdfast/admin";               // of `holdfast cluster init`
const std::string kLabAdmin = "/var/lib/holdfast/lab/lab/admin";  // of `holdfast lab up`

Result<std::string> folder_of(const ContextOptions& options) {
  if (!options.context.empty()) return options.context;
  if (const auto folder = environment("HOLDFAST_CONTEXT"); !folder.empty()) return folder;
  const std::string own = user_config_folder();
  const auto config = process::read_small_file(own + "/config.json");
  if (config.ok()) {
    const auto j = nlohmann::json::parse(*config, nullptr, false);
    if (!j.is_object() || !j.contains("context") || !j["context"].is_string()) {
      return Error{Code::invalid,
                   own + "/config.json must be an object with \"context\": the folder of the context."};
    }
    const std::string folder = j["context"].get<std::string>();
    return folder.starts_with('/') ? folder : own + "/" + folder;
  }
  std::error_code ignored;  // a folder that cannot be looked at is as good as none
  if (std::filesystem::exists(own + "/default", ignored)) return own + "/default";
  if (!std::filesystem::exists(kAdmin, ignored) && std::filesystem::exists(kLabAdmin, ignored)) return kLabAdmin;
  return kAdmin;
}
}  // namespace

std::string user_config_folder() {
  const std::string base = environment("XDG_CONFIG_HOME");
  return (base.empty() ? environment("HOME") + "/.config" : base) + "/holdfast";
}

std::vector<std::string> split_list(const std::string& text) {
  std::vector<std::string> out;
  std::string one;
  for (const char c : text + ",") {
    const bool separator = c == ',' || c == '\n' || c == ' ' || c == '\t' || c == '\r';
    if (!separator)
      one += c;
    else if (!one.empty())
      out.push_back(std::exchange(one, ""));
  }
  return out;
}

Result<Context> load_context(const ContextOptions& options) {
  TRY_ASSIGN(const std::string folder, folder_of(options));
  Context context;
  auto credentials = pki::load(folder);
  if (!credentials.ok() && credentials.code() == Code::not_found) {
    return Error{Code::not_found, "There is no context in " + folder +
                                      " (ca.pem, cert.pem, key.pem, endpoints): name "
                                      "one with --context DIR, or run `holdfast cluster init`."};
  }
  if (!credentials.ok()) return credentials.error();
  context.credentials = std::move(*credentials);
  std::string hosts = options.host.empty() ? environment("HOLDFAST_API") : options.host;
  if (hosts.empty()) {
    const auto endpoints = process::read_small_file(folder + "/endpoints");
    if (endpoints.ok()) hosts = *endpoints;
  }
  context.endpoints = split_list(hosts);
  if (context.endpoints.empty()) {
    return Error{Code::invalid, "No host to talk to is known: use --host, HOLDFAST_API or the file " +
                                    folder + "/endpoints."};
  }
  return context;
}

Status save_context(const Context& context, const std::string& folder) {
  TRY(pki::save(context.credentials, folder));
  std::string text;
  for (const auto& endpoint : context.endpoints) text += endpoint + "\n";
  return process::replace_file(folder + "/endpoints", text, 0644);
}

}  // namespace hf::cli
