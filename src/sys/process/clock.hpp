#pragma once
// The real clocks. Decisions use boot_now() only; wall_ms() is for people and records.
#include <ctime>

#include "base/ensure.hpp"
#include "base/time.hpp"

namespace hf::sys {

// CLOCK_BOOTTIME: never goes back, counts while the machine sleeps. The same clock as the hold page's
// deadline.
inline Instant boot_now() {
  timespec now{};
  ENSURE(clock_gettime(CLOCK_BOOTTIME, &now) == 0, "CLOCK_BOOTTIME is always there");
  return Instant(std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec));
}

inline WallMs wall_ms() {
  timespec now{};
  ENSURE(clock_gettime(CLOCK_REALTIME, &now) == 0, "CLOCK_REALTIME is always there");
  return static_cast<WallMs>(now.tv_sec) * 1000 + now.tv_nsec / 1'000'000;
}

}  // namespace hf::sys
