#pragma once
// Which process a pid means. A pid is reused; a pid with its start time is not. A pidfd, once checked, stays
// that process. Stateless.
#include <cstdint>
#include <string_view>

#include "base/result.hpp"
#include "base/time.hpp"
#include "sys/process/unique_fd.hpp"

namespace hf::process {

// Field 22 of /proc/<pid>/stat, clock ticks since boot. Code::not_found for a zombie: it has ended.
Result<std::uint64_t> parse_start_time(std::string_view stat_line);
// Code::not_found: no such process.
Result<std::uint64_t> start_time_of(int pid);
// A pidfd of the process that has this pid and began at `start_time`. Code::not_found: it has ended.
Result<UniqueFd> open_process(int pid, std::uint64_t start_time);
// Whether it has ended, waiting for that at most `limit`.
bool has_ended(int pidfd, Duration limit);

}  // namespace hf::process
