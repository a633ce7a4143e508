#include "sys/pki/files.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

namespace hf::pki {
namespace {
constexpr std::size_t kFileBytesMax = 1U << 20;

class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  ~Fd() {
    if (fd_ >= 0) ::close(fd_);
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

Status write_all(int fd, const std::string& text, const std::string& path) {
  std::size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = ::write(fd, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return from_errno("Cannot write " + path, errno);
    done += static_cast<std::size_t>(n);
  }
  return {};
}
}  // namespace

Result<std::string> read_file(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) return from_errno("Cannot read " + path, errno);
  std::string text;
  char buffer[4096];
  for (;;) {
    const ssize_t n = ::read(fd.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return from_errno("Cannot read " + path, errno);
    if (n == 0) return text;
    text.append(buffer, static_cast<std::size_t>(n));
    if (text.size() > kFileBytesMax)
      return Error{Code::invalid, "The file " + path + " is larger than 1 MiB."};
  }
}

Status write_file(const std::string& path, const std::string& text, unsigned mode) {
  const auto folder = std::filesystem::path(path).parent_path();
  std::error_code problem;
  if (!folder.empty()) std::filesystem::create_directories(folder, problem);
  if (problem) return from_errno("Cannot make the folder " + folder.string(), problem.value());
  std::string temporary = path + ".XXXXXX";
  const Fd fd(::mkstemp(temporary.data()));  // 0600 from the first byte
  if (fd.get() < 0) return from_errno("Cannot write " + path, errno);
  Status status = write_all(fd.get(), text, path);
  if (status.ok() && (::fchmod(fd.get(), mode) != 0 || ::fsync(fd.get()) != 0)) {
    status = from_errno("Cannot write " + path, errno);
  }
  if (status.ok() && std::rename(temporary.c_str(), path.c_str()) != 0) {
    status = from_errno("Cannot replace " + path, errno);
  }
  if (!status.ok()) {
    ::unlink(temporary.c_str());
    return status;
  }
  const Fd parent(::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (parent.get() < 0 || ::fsync(parent.get()) != 0)
    return from_errno("Cannot sync the folder of " + path, errno);
  return {};
}

}  // namespace hf::pki
