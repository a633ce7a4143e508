#include "config/store/open_store.hpp"

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

Result<std::unique_ptr<Store>> open_store(const StoreConfig& store) {
  if (store.kind == StoreKind::etcd) {
    TRY_ASSIGN(auto opened, etcd::EtcdStore::open(etcd_options(store)));
    return std::unique_ptr<Store>(std::move(opened));
  }
  sqlite::SqliteOptions options;
  options.path = store.path;
  TRY_ASSIGN(auto opened, sqlite::SqliteStore::open(options));
  return std::unique_ptr<Store>(std::move(opened));
}

}  // namespace hf::config
