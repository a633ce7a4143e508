#pragma once
// Sets the calling process's nice value so that it counts on the whole machine. Where the kernel makes a scheduling
// group of each session (sched_autogroup, on by default in Debian), a process's own value counts only within its
// session; the group has a value too. For use between fork and exec, after setsid(): async-signal-safe.
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <charconv>

namespace hf::process {

// False: the process's own value could not be set. A kernel without such groups is fine.
inline bool set_own_nice(int nice) {
  const int group = ::open("/proc/self/autogroup", O_WRONLY | O_CLOEXEC);
  if (group >= 0) {
    std::array<char, 8> text{};
    const auto end = std::to_chars(text.data(), text.data() + text.size(), nice).ptr;
    [[maybe_unused]] auto written = ::write(group, text.data(), static_cast<std::size_t>(end - text.data()));  // a wish
    ::close(group);
  }
  return ::setpriority(PRIO_PROCESS, 0, nice) == 0;
}

}  // namespace hf::process
