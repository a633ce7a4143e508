#pragma once
// The clock of deadlines: CLOCK_BOOTTIME, the one the shim reads too.
#include <ctime>

#include "base/ensure.hpp"
#include "base/time.hpp"

namespace hf::guard {
inline Instant boot_now() {
  timespec now{};
  ENSURE(clock_gettime(CLOCK_BOOTTIME, &now) == 0, "CLOCK_BOOTTIME is needed.");
  return Instant(std::chrono::seconds(now.tv_sec) + Duration(now.tv_nsec));
}
inline WallMs wall_now() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return WallMs{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000;
}
}  // namespace hf::guard
