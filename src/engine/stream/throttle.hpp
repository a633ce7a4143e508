#pragma once
// Throttle: a limit on the bytes that all connections of a motion send together. A token bucket.
#include <atomic>
#include <mutex>

#include "base/time.hpp"
#include "engine/connection.hpp"

namespace hf::engine::stream {

// Pure. Bytes are taken at once and paid for afterwards: who takes waits for what it and those before it took.
class TokenBucket {
 public:
  // A pause is made up for by no more than this much at full rate.
  static constexpr Duration kBurst = 10ms;
  // When the bytes may go.
  Instant take(std::uint64_t bytes, std::uint64_t bytes_per_second, Instant now);

 private:
  Instant paid_until_{};
};

// Thread-safe.
class Throttle {
 public:
  explicit Throttle(std::uint64_t bytes_per_second) : rate_(bytes_per_second) {}
  void limit(std::uint64_t bytes_per_second) { rate_ = bytes_per_second; }
  // Waits until `bytes` may go; at once without a limit. The error of `failure`, once that is set.
  Status take(std::uint64_t bytes, const Failure& failure);

 private:
  std::atomic<std::uint64_t> rate_;
  std::mutex mutex_;
  TokenBucket bucket_;
};

}  // namespace hf::engine::stream
