#include "config/config.hpp"

#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "sys/process/small_file.hpp"

namespace hf::config {
namespace {
using nlohmann::json;

// Reads one JSON object key by key; remembers the first mistake and which keys nobody asked for.
class Reader {
 public:
  Reader(const json& object, std::string path, std::string& mistake)
      : object_(object), path_(std::move(path)), mistake_(mistake) {
    if (!object_.is_object()) complain("", "must be an object");
  }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;
  ~Reader() {
    if (!object_.is_object()) return;
    for (const auto& [key, value] : object_.items()) {
      if (known_.find("|" + key + "|") == std::string::npos) complain(key, "is not a known key");
    }
  }

  void text(const char* key, std::string& out) {
    if (const json* value = find(key)) {
      if (value->is_string())
        out = value->get<std::string>();
      else
        complain(key, "must be a text");
    }
  }
  template <class Integer>
  void number(const char* key, Integer& out, std::int64_t low, std::int64_t high) {
    const json* value = find(key);
    if (value == nullptr) return;
    const bool integer = value->is_number_integer() &&
                         (!value->is_number_unsigned() || value->get<std::uint64_t>() <= INT64_MAX);
    if (!integer || value->get<std::int64_t>() < low || value->get<std::int64_t>() > high) {
      return complain(key,
                      "must be a whole number from " + std::to_string(low) + " to " + std::to_string(high));
    }
    out = static_cast<Integer>(value->get<std::int64_t>());
  }
  void texts(const char* key, std::vector<std::string>& out) {
    const json* value = find(key);
    if (value == nullptr) return;
    if (!value->is_array()) return complain(key, "must be a list of texts");
    for (const auto& item : *value) {
      if (!item.is_string()) return complain(key, "must be a list of texts");
      out.push_back(item.get<std::string>());
    }
  }
  // The object below `key`, or null.
  const json* object(const char* key) { return find(key); }
  void complain(const std::string& key, const std::string& what) {
    if (mistake_.empty()) mistake_ = "\"" + path_ + key + "\" " + what;
  }

 private:
  const json* find(const char* key) {
    known_ += std::string("|") + key + "|";
    if (!object_.is_object() || !object_.contains(key)) return nullptr;
    return &object_[key];
  }
  const json& object_;
  std::string path_;
  std::string& mistake_;
  std::string known_;
};

void read_store(const json& j, StoreConfig& store, std::string& mistake) {
  Reader reader(j, "store.", mistake);
  std::string kind = "sqlite";
  reader.text("kind", kind);
  if (kind != "sqlite" && kind != "etcd") reader.complain("kind", "must be \"sqlite\" or \"etcd\"");
  store.kind = kind == "etcd" ? StoreKind::etcd : StoreKind::sqlite;
  reader.text("path", store.path);
  reader.texts("endpoints", store.endpoints);
  reader.text("tls_ca", store.tls_ca);
  reader.text("tls_certificate", store.tls_certificate);
  reader.text("tls_key", store.tls_key);
  reader.text("prefix", store.prefix);
  if (store.kind == StoreKind::etcd && store.endpoints.empty())
    reader.complain("endpoints", "is needed with kind \"etcd\"");
}

void read_pki(const json& j, PkiConfig& pki, std::string& mistake) {
  Reader reader(j, "pki.", mistake);
  reader.text("ca", pki.ca);
  reader.text("certificate", pki.certificate);
  reader.text("key", pki.key);
}

void read_qemu(const json& j, QemuConfig& qemu, std::string& mistake) {
  Reader reader(j, "qemu.", mistake);
  reader.text("binary", qemu.binary);
  reader.number("uid", qemu.uid, -1, INT32_MAX);
  reader.number("gid", qemu.gid, -1, INT32_MAX);
  reader.text("shim", qemu.shim);
  reader.number("nice", qemu.nice, -20, 19);
}

bool is_port_range(const std::string& text) {
  constexpr int kPortMax = 65535;
  int first = 0, last = 0, read = 0;
  const bool two = std::sscanf(text.c_str(), "%5d-%5d%n", &first, &last, &read) == 2;
  return two && static_cast<std::size_t>(read) == text.size() && 0 < first && first <= last && last <= kPortMax;
}

void read_daemon(const json& j, HostConfig& config, std::string& mistake) {
  Reader reader(j, "", mistake);
  reader.text("host", config.host);
  reader.text("cluster_id", config.cluster_id);
  reader.text("api_listen", config.api_listen);
  reader.text("api_advertise", config.api_advertise);
  reader.text("heartbeat_listen", config.heartbeat_listen);
  reader.text("motion_address", config.motion_address);
  reader.text("motion_ports", config.motion_ports);
  reader.number("heartbeat_ms", config.heartbeat_ms, 10, 60'000);
  if (const json* store = reader.object("store")) read_store(*store, config.store, mistake);
  if (const json* pki = reader.object("pki")) read_pki(*pki, config.pki, mistake);
  reader.text("run_dir", config.run_dir);
  reader.text("state_dir", config.state_dir);
  reader.text("cgroup_root", config.cgroup_root);
  if (const json* qemu = reader.object("qemu")) read_qemu(*qemu, config.qemu, mistake);
  reader.number("memory_mib", config.memory_mib, 0, INT64_MAX);
  reader.number("cpus", config.cpus, 0, 4096);
  if (!is_port_range(config.motion_ports)) {
    reader.complain("motion_ports", "must be the first and the last port, such as \"7450-7481\"");
  }
  if (config.host.empty()) reader.complain("host", "is needed: the name of this host in the cluster");
  if (config.cluster_id.empty()) reader.complain("cluster_id", "is needed");
}
}  // namespace

Result<HostConfig> parse_config(const std::string& text, const std::string& source) {
  json j;
  try {
    j = json::parse(text);
  } catch (const json::exception& problem) {
    return Error{Code::invalid, source + " is not valid JSON: " + problem.what() + "."};
  }
  HostConfig config;
  std::string mistake;
  read_daemon(j, config, mistake);
  if (!mistake.empty()) return Error{Code::invalid, source + ": " + mistake + "."};
  return config;
}

std::string to_json(const HostConfig& c) {
  using ordered = nlohmann::ordered_json;
  ordered store;
  store["kind"] = c.store.kind == StoreKind::etcd ? "etcd" : "sqlite";
  store["path"] = c.store.path;
  store["endpoints"] = c.store.endpoints;
  store["tls_ca"] = c.store.tls_ca;
  store["tls_certificate"] = c.store.tls_certificate;
  store["tls_key"] = c.store.tls_key;
  store["prefix"] = c.store.prefix;
  ordered j;
  j["host"] = c.host;
  j["cluster_id"] = c.cluster_id;
  j["api_listen"] = c.api_listen;
  j["api_advertise"] = c.api_advertise;
  j["heartbeat_listen"] = c.heartbeat_listen;
  if (!c.motion_address.empty()) j["motion_address"] = c.motion_address;
  if (c.motion_ports != HostConfig{}.motion_ports) j["motion_ports"] = c.motion_ports;
  j["heartbeat_ms"] = c.heartbeat_ms;
  j["store"] = store;
  j["pki"] = ordered{{"ca", c.pki.ca}, {"certificate", c.pki.certificate}, {"key", c.pki.key}};
  j["run_dir"] = c.run_dir;
  j["state_dir"] = c.state_dir;
  j["cgroup_root"] = c.cgroup_root;
  j["qemu"] = ordered{{"binary", c.qemu.binary},
                      {"uid", c.qemu.uid},
                      {"gid", c.qemu.gid},
                      {"shim", c.qemu.shim},
                      {"nice", c.qemu.nice}};
  j["memory_mib"] = c.memory_mib;
  j["cpus"] = c.cpus;
  return j.dump(2) + "\n";
}

Result<HostConfig> load_config(const std::string& path) {
  TRY_ASSIGN(const std::string text, process::read_small_file(path));
  return parse_config(text, path);
}

Status save_config(const HostConfig& config, const std::string& path) {
  TRY(process::make_folder(std::filesystem::absolute(path).parent_path().string()));
  return process::replace_file(path, to_json(config), 0644);
}

}  // namespace hf::config
