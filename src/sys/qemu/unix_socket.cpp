#include "sys/qemu/unix_socket.hpp"

#include <poll.h>
#include <sys/fsuid.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

namespace hf::qemu {
namespace {
using Clock = std::chrono::steady_clock;

// False when the deadline has passed.
bool wait_for(int fd, short what, Clock::time_point deadline) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
  pollfd wait{fd, what, 0};
  return ::poll(&wait, 1, static_cast<int>(std::max<decltype(left)>(left, 0))) > 0;
}

ssize_t send_with(int fd, std::string_view bytes, int passed_fd) {
  iovec part{const_cast<char*>(bytes.data()), bytes.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof passed_fd)] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (passed_fd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    *header = {CMSG_LEN(sizeof passed_fd), SOL_SOCKET, SCM_RIGHTS};
    std::memcpy(CMSG_DATA(header), &passed_fd, sizeof passed_fd);
  }
  return ::sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return Error{Code::invalid, "The socket path " + path + " is too long: choose a shorter run directory."};
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

// This thread makes files as somebody else, until its end. Changing a file's owner afterwards would go by its name,
// which that somebody may have given to another file meanwhile.
class AsOwner {
 public:
  explicit AsOwner(const struct stat& folder)
      : gid_(::setfsgid(folder.st_gid)), uid_(::setfsuid(folder.st_uid)) {}
  ~AsOwner() {
    ::setfsuid(static_cast<uid_t>(uid_));
    ::setfsgid(static_cast<gid_t>(gid_));
  }
  AsOwner(const AsOwner&) = delete;
  AsOwner& operator=(const AsOwner&) = delete;

 private:
  const int gid_, uid_;
};

}  // namespace

Result<process::UniqueFd> listen_unix(const std::string& path) {
  TRY_ASSIGN(const sockaddr_un address, address_of(path));
  const std::string folder = path.substr(0, path.rfind('/'));
  struct stat status{};
  if (::stat(folder.c_str(), &status) < 0) return from_errno("Cannot look at " + folder, errno);
  process::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return from_errno("Cannot make a socket", errno);
  const AsOwner owner(status);
  ::fchmod(fd.get(), 0600);  // what bind() makes
  if (::unlink(path.c_str()) < 0 && errno != ENOENT) return from_errno("Cannot remove " + path, errno);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0 ||
      ::listen(fd.get(), SOMAXCONN) < 0) {
    return from_errno("Cannot listen on " + path, errno);
  }
  return fd;
}

Result<process::UniqueFd> connect_unix(const std::string& path) {
  TRY_ASSIGN(const sockaddr_un address, address_of(path));
  process::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return from_errno("Cannot make a socket", errno);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0) {
    return Error{Code::unavailable, "Cannot connect to " + path + ": " + std::strerror(errno) + "."};
  }
  return fd;
}

Status send_all(int fd, std::string_view bytes, Duration limit, int passed_fd) {
  const auto deadline = Clock::now() + limit;
  const std::size_t whole = bytes.size();
  while (!bytes.empty()) {
    const ssize_t count = send_with(fd, bytes, bytes.size() == whole ? passed_fd : -1);
    if (count >= 0) {
      bytes.remove_prefix(static_cast<std::size_t>(count));
    } else if (errno == EAGAIN) {
      if (wait_for(fd, POLLOUT, deadline)) continue;
      if (bytes.size() == whole) return Error{Code::timed_out, "QEMU does not read its socket."};
      return Error{Code::outcome_unknown, "QEMU stopped reading its socket halfway."};
    } else if (errno != EINTR) {
      const Code code = bytes.size() == whole ? Code::unavailable : Code::outcome_unknown;
      return Error{code, std::string("The connection to QEMU broke: ") + std::strerror(errno) + "."};
    }
  }
  return {};
}

Result<std::string> receive_some(int fd, Duration limit) {
  const auto deadline = Clock::now() + limit;
  std::string bytes(64 * 1024, '\0');
  for (;;) {
    const ssize_t count = ::recv(fd, bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (count >= 0) {
      bytes.resize(static_cast<std::size_t>(count));
      return bytes;
    }
    if (errno == EAGAIN) {
      if (!wait_for(fd, POLLIN, deadline)) return Error{Code::timed_out, "QEMU did not answer in time."};
    } else if (errno != EINTR) {
      return Error{Code::unavailable,
                   std::string("The connection to QEMU broke: ") + std::strerror(errno) + "."};
    }
  }
}

}  // namespace hf::qemu
