#pragma once
// Reading and replacing files that fit in memory. Stateless; every call names the path in its error, and none logs a
// content: keys are read and written so too.
#include <sys/types.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace hf::process {

// The whole file; Code::not_found if there is none, Code::corrupt beyond `bytes_max`.
Result<std::string> read_small_file(const std::string& path, std::size_t bytes_max = 1 << 20);
// The last `bytes_max` bytes of a file of any size.
Result<std::string> read_tail(const std::string& path, std::size_t bytes_max);
// Writes into an existing file (a kernel interface: cgroup, procfs) in one write.
Status write_control_file(const std::string& path, std::string_view text);
// A reader sees the old content or the new one, never a part: also after a crash of the machine (temporary file in the
// same folder, fsync, rename, fsync of the folder). `mode` is the file's from the first byte that others could read.
Status replace_file(const std::string& path, std::string_view content, mode_t mode);
// Its parents too, 0755; succeeds if it is there.
Status make_folder(const std::string& path);
// The names in a folder, sorted; none if it does not exist.
Result<std::vector<std::string>> list_folder(const std::string& path);

}  // namespace hf::process
