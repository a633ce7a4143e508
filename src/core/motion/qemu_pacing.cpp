#include "core/motion/qemu_pacing.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace hf::motion {

QemuPacing::Next QemuPacing::looked(std::uint64_t passes, Duration since) {
  if (passes < 2) return Next::go_on;
  if (first_pass_ == 0ns) {
    first_pass_ = step_at_ = std::max<Duration>(since, 1ns);
    step_pass_ = passes;
  }
  if (since - first_pass_ > std::max<Duration>(kLeast, kPasses * first_pass_)) return Next::give_up;
  if (fixed_ || stop_max_ >= kStopMost || passes == step_pass_ || since - step_at_ < kStepLeast) return Next::go_on;
  stop_max_ = std::min<Duration>(2 * stop_max_, kStopMost);
  step_at_ = since;
  step_pass_ = passes;
  return Next::aim_longer;
}

Error QemuPacing::given_up(std::uint64_t written_bytes_per_second, std::uint64_t held_back_percent) const {
  return {Code::failed,
          fmt::format("QEMU's own migration does not come to an end with a stop of {} ms: the guest writes {} MB/s, "
                      "and QEMU holds it back for {} % of its time. Allow a longer stop (--max-stop), or take "
                      "Holdfast's engine (--engine holdfast), which slows a guest down until it arrives.",
                      stop_max_ / 1ms, written_bytes_per_second / 1'000'000, held_back_percent)};
}

}  // namespace hf::motion
