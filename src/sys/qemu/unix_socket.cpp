#include "sys/qemu/unix_socket.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

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

}  // namespace

Result<process::UniqueFd> connect_unix(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return Error{Code::invalid, "The socket path " + path + " is too long: choose a shorter run directory."};
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
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
