#pragma once
// Small files and folders of the lab: read, write, make, remove. No state; any thread.
#include <string>
#include <vector>

#include "base/result.hpp"
#include "sys/process/unique_fd.hpp"

namespace hf::lab {

using Fd = process::UniqueFd;

bool exists(const std::string& path);
Result<std::string> read_file(const std::string& path);
// One write(2), as cgroup files want it; makes the file if it is not there.
Status write_file(const std::string& path, const std::string& text);
// Parents too; succeeds if it is there.
Status make_folder(const std::string& path);
// Everything below it; succeeds if it is not there. Stays on the file system it began on.
Status remove_folder(const std::string& path);
// Names in a folder, sorted; empty if it is not there.
std::vector<std::string> names_in(const std::string& path);

}  // namespace hf::lab
