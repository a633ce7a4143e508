#pragma once
// Cgroup: one cgroup v2 directory. A name, not a handle: the directory may not exist. Thread-safe; needs no
// controller.
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "base/time.hpp"

namespace hf::process {

// Where cgroup v2 is mounted, from the text of /proc/self/mountinfo. Code::unsupported, with what to do, if
// it is not.
Result<std::string> parse_cgroup2_mount(std::string_view mountinfo);
Result<std::string> cgroup2_mount();

class Cgroup {
 public:
  explicit Cgroup(std::string path) : path_(std::move(path)) {}
  const std::string& path() const { return path_; }

  bool exists() const;
  // Parents too; fine if it exists.
  Status create() const;
  // Code::not_found if it does not exist.
  Result<std::vector<int>> processes() const;
  // A process lives in it or below. False if it does not exist; an error is "cannot tell".
  Result<bool> populated() const;
  Status freeze(bool frozen) const;
  // SIGKILL to everything in it, frozen or not; returns when nothing lives in it any more. Fine if it does
  // not exist. Code::outcome_unknown: something did not end within `limit` (a process stuck in storage cannot
  // be killed).
  Status kill_all(Duration limit) const;
  // REQUIRES: not populated. Fine if it does not exist.
  Status remove() const;

 private:
  std::string path_;
};

}  // namespace hf::process
