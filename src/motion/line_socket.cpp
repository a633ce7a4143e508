#include "motion/line_socket.hpp"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "sys/process/clock.hpp"

namespace hf::motion {

Status LineSocket::write(std::string_view line, Duration limit) {
  const std::scoped_lock lock(write_mutex_);
  const Instant deadline = sys::boot_now() + limit;
  if (broken_) return Error{Code::unavailable, "The connection broke in the middle of a line."};
  broken_ = true;
  while (!line.empty()) {
    const ssize_t count = ::send(fd_.get(), line.data(), line.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count >= 0) {
      line.remove_prefix(static_cast<std::size_t>(count));
    } else if (errno == EAGAIN) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - sys::boot_now()).count();
      pollfd writable{fd_.get(), POLLOUT, 0};
      if (::poll(&writable, 1, static_cast<int>(std::max<std::int64_t>(left, 0))) <= 0) {
        return Error{Code::timed_out, "The other side does not read what it is told."};
      }
    } else if (errno != EINTR) {
      return from_errno("The other side cannot be told", errno);
    }
  }
  broken_ = false;
  return {};
}

Result<std::optional<std::string>> LineSocket::read(std::size_t bytes_max) {
  for (;;) {
    if (const auto end = partial_.find('\n'); end != std::string::npos) {
      std::string line = partial_.substr(0, end);
      partial_.erase(0, end + 1);
      return std::optional(std::move(line));
    }
    if (partial_.size() > bytes_max)
      return Error{Code::invalid, "The other side sent a line that is too long."};
    char bytes[4096];
    const ssize_t count = ::recv(fd_.get(), bytes, sizeof bytes, 0);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return std::optional<std::string>();
    partial_.append(bytes, static_cast<std::size_t>(count));
  }
}

void LineSocket::shut_down() { ::shutdown(fd_.get(), SHUT_RDWR); }

}  // namespace hf::motion
