#pragma once
// The store that a configuration names. Stateless; any thread.
#include <memory>

#include "config/config.hpp"
#include "port/store.hpp"
#include "sys/etcd/options.hpp"

namespace hf::config {

// "https://10.0.0.1:2379" and "10.0.0.1:2379" are both fine as endpoints.
etcd::EtcdOptions etcd_options(const StoreConfig& store);
// Opens it, making the folder of a file; an etcd need not be reachable yet. Errors as EtcdStore::open and
// SqliteStore::open.
Result<std::unique_ptr<Store>> open_store(const StoreConfig& store, Store::Options options = {});

}  // namespace hf::config
