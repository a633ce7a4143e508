#include "config/store/open_store.hpp"

#include <filesystem>

#include "sys/etcd/etcd_store.hpp"
#include "sys/sqlite/sqlite_store.hpp"

namespace hf::config {
namespace {
std::string without_scheme(const std::string& endpoint) {
  const auto at = endpoint.find("://");
  return at == std::string::npos ? endpoint : endpoint.substr(at + 3);
}
}  // namespace

etcd::EtcdOptions etcd_options(const StoreConfig& store) {
  etcd::EtcdOptions options;
  for (const auto& endpoint : store.endpoints) options.endpoints.push_back(without_scheme(endpoint));
  options.prefix = store.prefix;
  if (!store.tls_ca.empty()) options.tls = etcd::EtcdTls{store.tls_ca, store.tls_certificate, store.tls_key};
  return options;
}

Result<std::unique_ptr<Store>> open_store(const StoreConfig& store, Store::Options options) {
  if (store.kind == StoreKind::etcd) {
    etcd::EtcdOptions etcd = etcd_options(store);
    etcd.store = options;
    TRY_ASSIGN(auto opened, etcd::EtcdStore::open(etcd));
    return std::unique_ptr<Store>(std::move(opened));
  }
  std::error_code failed;
  std::filesystem::create_directories(std::filesystem::path(store.path).parent_path(), failed);
  if (failed) return from_errno("Cannot make the folder of " + store.path, failed.value());
  sqlite::SqliteOptions file;
  file.path = store.path;
  TRY_ASSIGN(auto opened, sqlite::SqliteStore::open(file));
  return std::unique_ptr<Store>(std::move(opened));
}

}  // namespace hf::config
