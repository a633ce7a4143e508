#include "sys/process/small_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "sys/process/unique_fd.hpp"

namespace hf::process {
namespace {

Status write_all(int fd, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const ssize_t count = ::write(fd, text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return from_errno("Cannot write " + path, errno);
    text.remove_prefix(static_cast<std::size_t>(count));
  }
  return {};
}

}  // namespace

Result<std::string> read_small_file(const std::string& path, std::size_t bytes_max) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return from_errno("Cannot read " + path, errno);
  std::string content;
  std::array<char, 4096> part;
  for (;;) {
    const ssize_t count = ::read(fd.get(), part.data(), part.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return from_errno("Cannot read " + path, errno);
    if (count == 0) return content;
    content.append(part.data(), static_cast<std::size_t>(count));
    if (content.size() > bytes_max) return Error{Code::corrupt, path + " is larger than it can rightly be."};
  }
}

Result<std::string> read_tail(const std::string& path, std::size_t bytes_max) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return from_errno("Cannot open " + path, errno);
  struct stat status{};
  if (::fstat(fd.get(), &status) < 0) return from_errno("Cannot read " + path, errno);
  const off_t wanted = std::min(status.st_size, static_cast<off_t>(bytes_max));
  std::string content(static_cast<std::size_t>(wanted), '\0');
  const ssize_t count = ::pread(fd.get(), content.data(), content.size(), status.st_size - wanted);
  if (count < 0) return from_errno("Cannot read " + path, errno);
  content.resize(static_cast<std::size_t>(count));
  return content;
}

Status write_control_file(const std::string& path, std::string_view text) {
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd) return from_errno("Cannot open " + path, errno);
  return write_all(fd.get(), text, path);
}

Status replace_file(const std::string& path, std::string_view content, mode_t mode) {
  std::string next = path + ".XXXXXX";
  const UniqueFd fd(::mkostemp(next.data(), O_CLOEXEC));  // 0600 from the first byte
  if (!fd) return from_errno("Cannot write " + path, errno);
  Status written = write_all(fd.get(), content, path);
  if (written.ok() && (::fchmod(fd.get(), mode) < 0 || ::fsync(fd.get()) < 0)) {
    written = from_errno("Cannot write " + path, errno);
  }
  if (written.ok() && ::rename(next.c_str(), path.c_str()) < 0) {
    written = from_errno("Cannot replace " + path, errno);
  }
  if (!written.ok()) {
    ::unlink(next.c_str());
    return written;
  }
  const std::string folder = path.substr(0, path.rfind('/') + 1);
  const UniqueFd parent(::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!parent || ::fsync(parent.get()) < 0) return from_errno("Cannot sync the folder of " + path, errno);
  return {};
}

Status make_folder(const std::string& path) {
  std::error_code problem;
  std::filesystem::create_directories(path, problem);
  if (problem) return from_errno("Cannot make the folder " + path, problem.value());
  return {};
}

Result<std::vector<std::string>> list_folder(const std::string& path) {
  std::vector<std::string> names;
  std::error_code problem;
  std::filesystem::directory_iterator entry(path, problem);
  for (; !problem && entry != std::filesystem::directory_iterator(); entry.increment(problem)) {
    names.push_back(entry->path().filename().string());
  }
  if (problem && problem != std::errc::no_such_file_or_directory) {
    return from_errno("Cannot list " + path, problem.value());
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace hf::process
