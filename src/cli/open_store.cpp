#include <filesystem>

#include "cli/init.hpp"
#include "sys/etcd/etcd_store.hpp"
#include "sys/sqlite/sqlite_store.hpp"

namespace hf::cli {

Result<std::unique_ptr<Store>> open_store(const daemon::StoreConfig& config) {
  if (config.kind == daemon::StoreKind::sqlite) {
    std::error_code problem;
    std::filesystem::create_directories(std::filesystem::path(config.path).parent_path(), problem);
    if (problem) return from_errno("Cannot make the folder of " + config.path, problem.value());
    TRY_ASSIGN(auto store, sqlite::SqliteStore::open({config.path}));
    return std::unique_ptr<Store>(std::move(store));
  }
  etcd::EtcdOptions options;
  for (const auto& endpoint : config.endpoints) {
    const auto scheme = endpoint.find("://");
    options.endpoints.push_back(scheme == std::string::npos ? endpoint : endpoint.substr(scheme + 3));
  }
  options.prefix = config.prefix;
  if (!config.tls_ca.empty())
    options.tls = etcd::EtcdTls{config.tls_ca, config.tls_certificate, config.tls_key};
  options.store.timeout = 30s;  // a member that has just been started
  TRY_ASSIGN(auto store, etcd::EtcdStore::open(options));
  return std::unique_ptr<Store>(std::move(store));
}

}  // namespace hf::cli
