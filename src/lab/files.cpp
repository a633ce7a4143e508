#include "lab/files.hpp"

#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <utility>

namespace hf::lab {

bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

Status remove_folder(const std::string& path) {
  const auto remove_one = [](const char* name, const struct stat*, int, struct FTW*) {
    return ::remove(name);
  };
  if (!exists(path)) return {};
  if (::nftw(path.c_str(), remove_one, 32, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) != 0) {
    return from_errno("Cannot remove " + path, errno);
  }
  return {};
}

std::vector<std::string> names_in(const std::string& path) {
  auto names = process::list_folder(path);
  return names ? std::move(*names) : std::vector<std::string>{};
}

}  // namespace hf::lab
