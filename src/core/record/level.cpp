#include "core/record/level.hpp"

#include "core/record/records.hpp"

namespace hf::record {

Status check_level(int cluster_level) {
  if (cluster_level <= kLevel) return {};
  return Error{Code::unsupported, "The hosts of this cluster have a later version of Holdfast, whose records the one "
                                  "on this machine does not know. Install theirs here."};
}

}  // namespace hf::record
