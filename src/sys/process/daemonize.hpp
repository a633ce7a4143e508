#pragma once
// Starts a program that outlives us: reparented to init, in a session and a cgroup of its own, as another
// user, with no file of ours but those named. Thread-safe; the calling process may have threads.
#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "sys/process/unique_fd.hpp"

namespace hf::process {

struct Credentials {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;  // supplementary; all others are dropped
};

struct DetachedProcess {
  int pid = 0;
  std::uint64_t start_time = 0;  // identity.hpp
  UniqueFd pidfd;
};

struct DetachRequest {
  std::vector<std::string> argv;         // argv[0] is looked up in PATH if it has no slash
  std::vector<std::string> environment;  // "NAME=value", all of it
  std::string output_path;               // gets standard output and error, appended
  std::string cgroup;                    // existing cgroup v2 directory, entered before the program starts
  std::vector<int> inherited_fds;        // keep their numbers
  std::optional<Credentials> credentials;
  int nice = 0;
  int oom_score_adj = 0;
  // Called with the process that will become the program. If it fails, or if we die in it, the program never
  // starts.
  std::function<Status(const DetachedProcess&)> before_exec;
};

// Returns when the program was started (or could not be: nothing is left then).
Result<DetachedProcess> spawn_detached(const DetachRequest& request);

}  // namespace hf::process
