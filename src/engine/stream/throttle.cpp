#include "engine/stream/throttle.hpp"

#include <poll.h>

#include <algorithm>

#include "sys/process/clock.hpp"

namespace hf::engine::stream {

Instant TokenBucket::take(std::uint64_t bytes, std::uint64_t bytes_per_second, Instant now) {
  const Instant go = std::max(paid_until_, now - kBurst);
  const double seconds = static_cast<double>(bytes) / static_cast<double>(bytes_per_second);
  paid_until_ = go + std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
  return std::max(go, now);
}

Status Throttle::take(std::uint64_t bytes, const Failure& failure) {
  const std::uint64_t rate = rate_;
  if (rate == 0) return {};
  const Instant now = sys::boot_now();
  Instant go;
  {
    const std::scoped_lock lock(mutex_);
    go = bucket_.take(bytes, rate, now);
  }
  const auto wait = std::max<std::int64_t>(0, (go - now).count());
  const timespec patience{wait / 1'000'000'000, wait % 1'000'000'000};
  pollfd end{failure.descriptor(), POLLIN, 0};
  if (wait > 0 && ::ppoll(&end, 1, &patience, nullptr) > 0) return failure.status();
  return {};
}

}  // namespace hf::engine::stream
