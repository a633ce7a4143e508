#pragma once
// cgroup2 folders as the lab uses them: groups of processes that are killed, frozen and counted at once. No
// controllers.
#include <string>
#include <vector>

#include "base/result.hpp"

namespace hf::lab::cgroup {

Status make(const std::string& path);
// Kills everything in it and below with one write, then waits until it is empty (processes in the kernel may
// take a while). Also where it is frozen. Succeeds if it is not there.
Status kill(const std::string& path);
// kill, then the folders go, children first.
Status remove(const std::string& path);
Status set_frozen(const std::string& path, bool frozen);
bool is_frozen(const std::string& path);
// Whether a process lives in it or below.
bool is_populated(const std::string& path);
// Of it and below.
std::vector<int> pids(const std::string& path);

}  // namespace hf::lab::cgroup
