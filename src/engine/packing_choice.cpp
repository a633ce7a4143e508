#include "engine/packing_choice.hpp"

#include <algorithm>

namespace hf::engine {
namespace {
constexpr double kNewWeight = 0.3;     // of the last window in a mean
constexpr double kBlockedShare = 0.2;  // from here on the link is what we wait for
constexpr double kLinkGrowth = 1.05;   // a link that we do not wait for may be faster than it was seen
constexpr double kForget =
    0.01;  // what was not tried for some time comes back to the guess, and is tried again
constexpr double kWorthIt = 0.9;  // packing must be this much better: it takes processor time from the guests

double seconds(Duration duration) { return std::chrono::duration<double>(duration).count(); }
double mean(double old, double seen, double weight) { return old + weight * (seen - old); }
}  // namespace

void PackingChoice::observe(const Window& window) {
  const double bytes = static_cast<double>(window.bytes);
  const double sent = static_cast<double>(window.sent_bytes);
  const double took = seconds(window.took);
  if (bytes <= 0 || took <= 0) return;
  const auto used = static_cast<std::size_t>(window.packing);
  const double work = std::max(0.0, took - seconds(window.blocked) - seconds(window.packed));
  const double used_weight = used == used_before_ ? kNewWeight : 1;  // what is known of it is old
  used_before_ = used;
  work_seconds_ = mean(work_seconds_, work / bytes, kNewWeight);
  for (std::size_t i = 1; i < costs_.size(); ++i) {
    const Cost target = i == used ? Cost{seconds(window.packed) / bytes, sent / bytes} : kGuess[i];
    const double weight = i == used ? used_weight : kForget;
    costs_[i] = {mean(costs_[i].seconds, target.seconds, weight),
                 mean(costs_[i].ratio, target.ratio, weight)};
  }
  const bool waits_for_link = seconds(window.blocked) > kBlockedShare * took;
  if (waits_for_link) {
    const double seen = sent / took;
    link_bytes_per_second_ =
        link_bytes_per_second_ == 0 ? seen : mean(link_bytes_per_second_, seen, kNewWeight);
  } else if (link_bytes_per_second_ != 0) {
    link_bytes_per_second_ = std::max(link_bytes_per_second_ * kLinkGrowth, sent / took);
  }
}

double PackingChoice::time_of(std::size_t packing) const {
  const double work = work_seconds_ + costs_[packing].seconds;
  return link_bytes_per_second_ == 0 ? work : std::max(work, costs_[packing].ratio / link_bytes_per_second_);
}

wire::Packing PackingChoice::best() const {
  std::size_t best = 0;
  for (std::size_t i = 1; i < costs_.size(); ++i) {
    if (time_of(i) < kWorthIt * time_of(best)) best = i;
  }
  return static_cast<wire::Packing>(best);
}

}  // namespace hf::engine
