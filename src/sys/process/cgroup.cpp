#include "sys/process/cgroup.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <sstream>
#include <system_error>

#include "sys/process/small_file.hpp"
#include "sys/process/unique_fd.hpp"

namespace hf::process {
namespace {
using Clock = std::chrono::steady_clock;

bool says_populated(const std::string& events) { return events.find("populated 1") != std::string::npos; }

// mountinfo writes a space in a path as \040.
std::string unescape(std::string_view text) {
  std::string plain;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] == '\\' && at + 3 < text.size()) {
      plain += static_cast<char>((text[at + 1] - '0') * 64 + (text[at + 2] - '0') * 8 + (text[at + 3] - '0'));
      at += 3;
    } else {
      plain += text[at];
    }
  }
  return plain;
}

}  // namespace

Result<std::string> parse_cgroup2_mount(std::string_view mountinfo) {
  std::istringstream lines{std::string(mountinfo)};
  for (std::string line; std::getline(lines, line);) {
    const auto separator = line.find(" - ");
    if (separator == std::string::npos || line.compare(separator + 3, 8, "cgroup2 ") != 0) continue;
    std::istringstream fields(line);
    std::string id, parent, device, root, mount_point;
    fields >> id >> parent >> device >> root >> mount_point;
    return unescape(mount_point);
  }
  return Error{Code::unsupported,
               "Holdfast needs the cgroup v2 hierarchy, and this machine has none mounted: boot with "
               "systemd.unified_cgroup_hierarchy=1, or run `mkdir -p /sys/fs/cgroup/unified && "
               "mount -t cgroup2 none /sys/fs/cgroup/unified`."};
}

Result<std::string> cgroup2_mount() {
  TRY_ASSIGN(const std::string mountinfo, read_small_file("/proc/self/mountinfo", 16 << 20));
  return parse_cgroup2_mount(mountinfo);
}

bool Cgroup::exists() const {
  struct stat status{};
  return ::stat(path_.c_str(), &status) == 0;
}

Status Cgroup::create() const {
  std::error_code problem;
  std::filesystem::create_directories(path_, problem);
  if (problem) return from_errno("Cannot create the cgroup " + path_, problem.value());
  return {};
}

Result<std::vector<int>> Cgroup::processes() const {
  TRY_ASSIGN(const std::string text, read_small_file(path_ + "/cgroup.procs"));
  std::istringstream numbers(text);
  std::vector<int> pids;
  for (int pid = 0; numbers >> pid;) pids.push_back(pid);
  return pids;
}

Result<bool> Cgroup::populated() const {
  auto events = read_small_file(path_ + "/cgroup.events");
  if (!events && (events.code() == Code::not_found || !exists())) return false;
  if (!events) return events.error();
  return says_populated(*events);
}

Status Cgroup::freeze(bool frozen) const {
  return write_control_file(path_ + "/cgroup.freeze", frozen ? "1" : "0");
}

Status Cgroup::kill_all(Duration limit) const {
  const auto deadline = Clock::now() + limit;
  for (;;) {
    TRY_ASSIGN(const bool alive, populated());
    if (!alive) return {};
    // cgroup.kill came with Linux 5.14.
    if (const Status killed = write_control_file(path_ + "/cgroup.kill", "1"); !killed.ok()) {
      auto pids = processes();
      if (pids) {
        for (const int pid : *pids) ::kill(pid, SIGKILL);
      }
    }
    const UniqueFd events(::open((path_ + "/cgroup.events").c_str(), O_RDONLY | O_CLOEXEC));
    if (!events) continue;
    // The kernel reports changes since the last read of this very descriptor.
    std::string text(256, '\0');
    const ssize_t count = ::read(events.get(), text.data(), text.size());
    if (count < 0 || !says_populated(text)) continue;
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) {
      return Error{Code::outcome_unknown,
                   "The processes in " + path_ +
                       " were killed but have not ended: they may be stuck in storage that "
                       "does not answer."};
    }
    pollfd wait{events.get(), POLLPRI, 0};
    // Capped: without cgroup.kill a process forked meanwhile needs another round.
    ::poll(&wait, 1, static_cast<int>(std::min<decltype(left)>(left, 100)));
  }
}

Status Cgroup::remove() const {
  if (::rmdir(path_.c_str()) < 0 && errno != ENOENT)
    return from_errno("Cannot remove the cgroup " + path_, errno);
  return {};
}

}  // namespace hf::process
