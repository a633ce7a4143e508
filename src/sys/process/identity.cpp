#include "sys/process/identity.hpp"

#include <poll.h>
#include <sys/syscall.h>

#include <cerrno>
#include <charconv>
#include <string>

#include "sys/process/small_file.hpp"

namespace hf::process {

Result<std::uint64_t> parse_start_time(std::string_view stat_line) {
  // The name, in parentheses, may hold spaces and parentheses itself: count from the last one.
  const auto name_end = stat_line.rfind(") ");
  if (name_end == std::string_view::npos) return Error{Code::corrupt, "A process's stat line has no name."};
  std::string_view rest = stat_line.substr(name_end + 2);
  if (rest.starts_with('Z') || rest.starts_with('X')) return Error{Code::not_found, "The process has ended."};
  for (int field = 3; field < 22; ++field) {
    const auto space = rest.find(' ');
    if (space == std::string_view::npos) return Error{Code::corrupt, "A process's stat line is too short."};
    rest.remove_prefix(space + 1);
  }
  std::uint64_t ticks = 0;
  const auto parsed = std::from_chars(rest.data(), rest.data() + rest.size(), ticks);
  if (parsed.ec != std::errc{}) return Error{Code::corrupt, "A process's start time is not a number."};
  return ticks;
}

Result<std::uint64_t> start_time_of(int pid) {
  auto line = read_small_file("/proc/" + std::to_string(pid) + "/stat");
  // ESRCH comes when it ends between open and read.
  if (!line) return Error{Code::not_found, "There is no process " + std::to_string(pid) + "."};
  return parse_start_time(*line);
}

Result<UniqueFd> open_process(int pid, std::uint64_t start_time) {
  UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0U)));
  if (!pidfd) {
    if (errno == ESRCH) return Error{Code::not_found, "There is no process " + std::to_string(pid) + "."};
    return from_errno("Cannot watch process " + std::to_string(pid), errno);
  }
  // Read after the pidfd was opened: what the pidfd holds cannot be replaced under us.
  TRY_ASSIGN(const std::uint64_t found, start_time_of(pid));
  if (found != start_time) {
    return Error{Code::not_found,
                 "The process ended and its id, " + std::to_string(pid) + ", was given anew."};
  }
  return pidfd;
}

bool has_ended(int pidfd, Duration limit) {
  pollfd wait{pidfd, POLLIN, 0};
  const auto milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(limit).count();
  return ::poll(&wait, 1, static_cast<int>(milliseconds)) == 1;
}

}  // namespace hf::process
