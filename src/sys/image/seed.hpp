#pragma once
// The cloud-init seed of a VM: a NoCloud ISO labelled "cidata", made with xorriso. Made whole or not at all,
// as images are (image.hpp). Any thread; blocks.
#include <string>

#include "base/result.hpp"
#include "core/vm/spec.hpp"

namespace hf::image {

// An existing file at `path` is replaced. The seed may hold secrets: mode 0600.
Status make_seed(const vm::CloudInit& seed, const std::string& vm_name, const std::string& vm_id,
                 const std::string& path);

}  // namespace hf::image
