#include "daemon/open_store.hpp"

#include "sys/etcd/etcd_store.hpp"
#include "sys/sqlite/sqlite_store.hpp"

namespace hf::daemon {

etcd::EtcdOptions etcd_options(const DaemonConfig& config) {
  etcd::EtcdOptions options;
  options.endpoints = config.store.endpoints;
  options.prefix = config.store.prefix;
  if (!config.store.tls_ca.empty()) {
    options.tls = etcd::EtcdTls{config.store.tls_ca, config.store.tls_certificate, config.store.tls_key};
  }
  return options;
}

Result<std::unique_ptr<Store>> open_store(const DaemonConfig& config) {
  if (config.store.kind == StoreKind::etcd) {
    TRY_ASSIGN(auto store, etcd::EtcdStore::open(etcd_options(config)));
    return std::unique_ptr<Store>(std::move(store));
  }
  sqlite::SqliteOptions options;
  options.path = config.store.path;
  TRY_ASSIGN(auto store, sqlite::SqliteStore::open(options));
  return std::unique_ptr<Store>(std::move(store));
}

}  // namespace hf::daemon
