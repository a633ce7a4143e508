#pragma once
// Which hosts a cluster's level (record::kLevel) keeps out. Pure.
#include "base/result.hpp"

namespace hf::record {

// Of a program of this version, where the cluster has that level. Code::unsupported: its records may hold what this
// version misreads, so nothing of it may begin to work there.
Status check_level(int cluster_level);

}  // namespace hf::record
