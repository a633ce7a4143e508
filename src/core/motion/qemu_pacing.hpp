#pragma once
// QemuPacing: how QEMU's own migration gets to its end. QEMU stops the guest by itself, when what is left fits into the
// stop that it is told to aim at, at the speed so far. This says, after each look at it, whether that stop is to be
// longer, or the migration is to be given up. Pure; a value of one thread.
//
// A pass is one way over what was written during the one before; the first is over all of memory. Each later one that
// ends without the stop did not fit into it. Unless the user has named the stop, it is doubled then, up to kStopMost,
// and no sooner than kStepLeast after the last time: QEMU's slow-down of the guest grows from pass to pass, too, and a
// guest that comes to rest by it shall keep its short stop. (Over a round trip of 50 ms hardly any guest fits into
// 20 ms: what it writes in two round trips is more than the link carries in that time.)
// What has not ended after kPasses times the first pass, and kLeast, is given up.
#include <cstdint>

#include "base/result.hpp"
#include "base/time.hpp"

namespace hf::motion {

struct QemuPacingOptions {
  Duration stop_max = 20ms;
  bool fixed = false;  // the user has named it
};

class QemuPacing {
 public:
  static constexpr Duration kStopMost = 1s;
  static constexpr Duration kStepLeast = 2s;
  static constexpr Duration kLeast = 30s;
  static constexpr int kPasses = 10;

  enum class Next { go_on, aim_longer, give_up };

  explicit QemuPacing(QemuPacingOptions options = {}) : stop_max_(options.stop_max), fixed_(options.fixed) {}

  // The guest runs. `passes`: that have begun. `since`: the migration's begin. Neither ever goes back.
  Next looked(std::uint64_t passes, Duration since);
  // What QEMU shall aim at now.
  Duration stop_max() const { return stop_max_; }
  // What the user is told of a migration that was given up. `held_back_percent`: of the guest's time, by QEMU.
  Error given_up(std::uint64_t written_bytes_per_second, std::uint64_t held_back_percent) const;

 private:
  Duration stop_max_;
  bool fixed_;
  Duration first_pass_{};        // 0: it has not ended yet
  Duration step_at_{};           // since when QEMU aims at stop_max_, or when the first pass had ended
  std::uint64_t step_pass_ = 0;  // the pass of that time
};

}  // namespace hf::motion
