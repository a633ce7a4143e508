#pragma once
// The init of a host of the lab: one process, in the host's network and mount namespaces and cgroup, that
// starts the services of etc/services.json and starts them again when they die. It ends only by a power cut.
// One thread.
#include <string>

#include "base/result.hpp"
#include "lab/layout.hpp"

namespace hf::lab {

// Returns only with an error.
Status run_host_init(const Layout& layout, const std::string& host);

}  // namespace hf::lab
