#pragma once
// Time as the deciding code sees it. Instant counts on a clock that never goes back and, where the system has one,
// goes on while the machine sleeps (CLOCK_BOOTTIME). It means nothing outside the host it was read on.
#include <chrono>
#include <cstdint>

namespace hf {
using Duration = std::chrono::nanoseconds;
struct HostClock {
  using rep = std::int64_t;
  using period = std::nano;
  using duration = Duration;
  using time_point = std::chrono::time_point<HostClock>;
  static constexpr bool is_steady = true;
};
using Instant = HostClock::time_point;
// Wall time in milliseconds since 1970, for people and records; never for a decision.
using WallMs = std::int64_t;
using namespace std::chrono_literals;
}  // namespace hf
