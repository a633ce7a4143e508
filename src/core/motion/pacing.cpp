#include "core/motion/pacing.hpp"

#include <algorithm>
#include <utility>

namespace hf::motion {
namespace {
using Seconds = std::chrono::duration<double>;

constexpr double kGood = 0.7;
constexpr double kSlower = 0.7;
constexpr double kLatest = 0.5;  // weight of the latest round in c
// Of fewer pages a round's time says more of the link's round trip than of a page.
constexpr std::uint64_t kTellingPages = 256;

Duration rounded(double seconds) { return std::chrono::round<Duration>(Seconds(std::min(seconds, 1e6))); }

}  // namespace

void Pacing::copied(const CopiedRound& round) {
  if (round.pages == 0) return;
  const double seconds = Seconds(round.took).count() / static_cast<double>(round.pages);
  if (page_seconds_ == 0) {
    page_seconds_ = seconds;
  } else if (round.pages >= kTellingPages) {
    page_seconds_ = kLatest * seconds + (1 - kLatest) * page_seconds_;
  }
}

std::optional<Duration> Pacing::copy_time(std::uint64_t pages) const {
  if (page_seconds_ == 0) return std::nullopt;
  return rounded(static_cast<double>(pages) * page_seconds_);
}

Pacing::Next Pacing::scanned(std::uint64_t pages, Duration fixed) {
  const std::uint64_t before = std::exchange(pages_, pages);
  const auto copy = copy_time(pages);
  if (!copy) return Next::copy_and_run;
  if (*copy <= std::max(options_.stop_max - fixed, options_.stop_max / 4)) return Next::stop;
  if (before == 0) return Next::copy_and_run;
  ratio_ = static_cast<double>(pages) / static_cast<double>(before);
  if (*ratio_ <= kGood) return Next::copy_and_run;
  if (share_ <= options_.share_min) return Next::stop;
  if (++bad_rounds_ > 1) share_ = std::max(options_.share_min, share_ * kSlower);
  return Next::copy_and_run;
}

std::optional<Duration> Pacing::time_left() const {
  if (!ratio_ || *ratio_ > kGood) return std::nullopt;
  // P c (1 + q + q^2 + ...)
  return rounded(static_cast<double>(pages_) * page_seconds_ / (1 - *ratio_));
}

}  // namespace hf::motion
