#pragma once
// Starting programs: in this process's place or in a place of the lab (network namespace, mount namespace,
// cgroup). REQUIRES: the calling process has one thread (the place is entered between fork and exec). No
// state.
#include <functional>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace hf::lab {

// Each may be empty: then it stays what it is. Files: /run/netns/..., a mount namespace's file, a cgroup's
// folder.
struct Place {
  std::string network;
  std::string mounts;
  std::string cgroup;
};

// Runs it to its end. Its output, or Code::failed with the last line of what it said on standard error.
Result<std::string> run(const std::vector<std::string>& argv, const std::string& input = {},
                        const Place& place = {});

// Starts it in a session of its own, with no input, and leaves it alone. `log` (created, appended to) gets
// what it says; `keep` are inherited. The pid.
Result<int> start(const std::vector<std::string>& argv, const Place& place, const std::string& log,
                  const std::vector<int>& keep = {});

// Runs it on this terminal; its exit status, 128 + signal if it was killed.
Result<int> run_attached(const std::vector<std::string>& argv, const Place& place);

// Runs `work` in a child that has entered `place`. Its Status comes back.
Status run_in(const Place& place, const std::function<Status()>& work);

// Enters the place for good. For a child that has just been forked.
Status enter(const Place& place);

// The path of this program.
std::string own_path();
bool has_program(const std::string& name);

}  // namespace hf::lab
