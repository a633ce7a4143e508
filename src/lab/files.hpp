#pragma once
// What the lab does with files and folders beyond sys/process/small_file.hpp. No state; any thread.
#include <cstddef>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "sys/process/small_file.hpp"
#include "sys/process/unique_fd.hpp"

namespace hf::lab {

using Fd = process::UniqueFd;

inline constexpr std::size_t kMountinfoMax = 16 << 20;

bool exists(const std::string& path);
// Everything below it; succeeds if it is not there. Stays on the file system it began on.
Status remove_folder(const std::string& path);
// Names in a folder, sorted; empty if it is not there.
std::vector<std::string> names_in(const std::string& path);

}  // namespace hf::lab
