#pragma once
// The store that a configuration names.
#include <memory>

#include "daemon/config.hpp"
#include "port/store.hpp"
#include "sys/etcd/options.hpp"

namespace hf::daemon {

etcd::EtcdOptions etcd_options(const DaemonConfig& config);
// Opens it; an etcd need not be reachable yet.
Result<std::unique_ptr<Store>> open_store(const DaemonConfig& config);

}  // namespace hf::daemon
