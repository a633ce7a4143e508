#include "sys/image/partial.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>

namespace hf::image {

Status sync(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return from_errno("Cannot open " + path, errno);
  const int problem = ::fsync(fd) == 0 ? 0 : errno;
  ::close(fd);
  if (problem != 0) return from_errno("Cannot write " + path + " to its disk", problem);
  return {};
}

Partial::~Partial() {
  if (!is_published_) ::unlink(path_.c_str());  // if it is there; remove_partials is the second line
}

Status Partial::publish() {
  if (::chmod(path_.c_str(), 0600) != 0) return from_errno("Cannot set the mode of " + path_, errno);
  TRY(sync(path_));
  if (std::rename(path_.c_str(), target_.c_str()) != 0) return from_errno("Cannot rename " + path_, errno);
  is_published_ = true;
  return sync(std::filesystem::path(target_).parent_path());
}

}  // namespace hf::image
