#pragma once
// Small whole-file reads and writes for keys and configuration. Stateless; any thread. Never logs contents.
#include <string>

#include "base/result.hpp"

namespace hf::pki {

// At most 1 MiB. Code::not_found if there is no such file.
Result<std::string> read_file(const std::string& path);

// Replaces the file in one step (temporary file in the same folder, fsync, rename, fsync of the folder); the
// folder is made, 0755, if it is missing. `mode`: 0600 for keys, 0644 for the rest.
Status write_file(const std::string& path, const std::string& text, unsigned mode);

}  // namespace hf::pki
