#include "cli/init.hpp"

namespace hf::cli {

// Joined to sys/sqlite and sys/etcd when those are there.
Result<std::unique_ptr<Store>> open_store(const daemon::StoreConfig&) {
  return Error{Code::unsupported, "This build has no store."};
}

}  // namespace hf::cli
