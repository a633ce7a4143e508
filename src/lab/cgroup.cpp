#include "lab/cgroup.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <sstream>

#include "lab/files.hpp"

namespace hf::lab::cgroup {
namespace {

constexpr auto kDeathTimeout = std::chrono::seconds(20);
constexpr auto kFreezeTimeout = std::chrono::milliseconds(500);

std::vector<std::string> folders_in(const std::string& path) {
  std::vector<std::string> folders;
  for (const auto& name : names_in(path)) {
    struct stat facts{};
    const std::string child = path + "/" + name;
    if (::lstat(child.c_str(), &facts) == 0 && S_ISDIR(facts.st_mode)) folders.push_back(child);
  }
  return folders;
}

bool has_event(const std::string& path, const std::string& line) {
  const auto text = process::read_small_file(path + "/cgroup.events");
  return text.ok() && text->find(line) != std::string::npos;
}

// cgroup.events becomes readable (POLLPRI) when it has changed since it was last read through the same
// descriptor.
Status wait_for_event(const std::string& path, const std::string& line, std::chrono::milliseconds timeout) {
  const Fd file(::open((path + "/cgroup.events").c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return from_errno("Cannot watch " + path, errno);
  const auto end = std::chrono::steady_clock::now() + timeout;
  for (;;) {
    std::array<char, 256> text{};
    const ssize_t count = ::pread(file.get(), text.data(), text.size() - 1, 0);
    if (count > 0 && std::string(text.data()).find(line) != std::string::npos) return {};
    if (std::chrono::steady_clock::now() > end) {
      return Error{Code::timed_out,
                   "Processes of " + path + " did not reach the state \"" + line + "\" in time."};
    }
    pollfd changed{file.get(), POLLPRI, 0};
    ::poll(&changed, 1, 100);
  }
}

}  // namespace

Status make(const std::string& path) { return process::make_folder(path); }

Status kill(const std::string& path) {
  if (!exists(path)) return {};
  TRY(process::write_control_file(path + "/cgroup.kill", "1"));
  return wait_for_event(path, "populated 0", kDeathTimeout);
}

Status remove(const std::string& path) {
  TRY(kill(path));
  for (const auto& child : folders_in(path)) TRY(remove(child));
  if (::rmdir(path.c_str()) != 0 && errno != ENOENT) return from_errno("Cannot remove " + path, errno);
  return {};
}

Status set_frozen(const std::string& path, bool frozen) {
  TRY(process::write_control_file(path + "/cgroup.freeze", frozen ? "1" : "0"));
  if (!frozen || !is_populated(path)) return {};
  // A process that waits in the kernel, for a hung datastore, say, does nothing either, but counts as frozen
  // only when it comes back. So the time limit is no error.
  [[maybe_unused]] auto all = wait_for_event(path, "frozen 1", kFreezeTimeout);
  return {};
}

bool is_frozen(const std::string& path) {
  const auto text = process::read_small_file(path + "/cgroup.freeze");
  return text.ok() && text->starts_with("1");
}

bool is_populated(const std::string& path) { return has_event(path, "populated 1"); }

std::vector<int> pids(const std::string& path) {
  std::vector<int> found;
  if (auto text = process::read_small_file(path + "/cgroup.procs")) {
    std::istringstream words(*text);
    for (int pid = 0; words >> pid;) found.push_back(pid);
  }
  for (const auto& child : folders_in(path)) {
    const auto below = pids(child);
    found.insert(found.end(), below.begin(), below.end());
  }
  return found;
}

}  // namespace hf::lab::cgroup
