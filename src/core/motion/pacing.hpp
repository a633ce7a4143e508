#pragma once
// Pacing: how a vMotion's copy gets to its end. After each scan, the guest standing still, it says what next: copy what
// was written while the guest runs on (perhaps for only a part of the time), or leave it stopped and copy the rest.
// Pure; a value of one thread.
//
// What is known: P, the pages that the scan found; c, the time that a page took in the latest rounds; f, the part of
// the stop that does not depend on P (stop, scan, save, load). The guest stays stopped when P c fits into the time that
// the target leaves: B = max(stop_max - f, stop_max / 4). (Where f alone is near the target, copying on gains little.)
//
// Why it ends, whatever the guest does. Let W be the pages that the guest writes in a second at full speed, and X <= 1
// the share of time that it may run. A round of P pages takes P c, so the next scan finds at most P' = (W X c) P.
// A round is called good if P' <= kGood P.
//   1. Good rounds follow one another at most log(P_all / P_least) / log(1 / kGood) times, P_all being all of RAM and
//      P_least = B / c: then the rest fits.
//   2. Any other round makes X smaller by kSlower, never larger, until X = share_min: at most
//      log(1 / share_min) / log(1 / kSlower) + 1 times. The first is for nothing: a burst is no trend.
//   3. A round that is not good at X = share_min ends the copy: stop now, whatever is left. That is at most what the
//      guest can write at share_min during one round, and the stop it costs is reported.
// So the number of rounds is finite: with kSlower 0.7 and share_min 0.05 at most 10 rounds are bad, and most guests
// converge as soon as W X c <= 0.7: a link of half the guest's speed is enough at X = 0.35.
#include <cstdint>
#include <optional>

#include "base/time.hpp"

namespace hf::motion {

struct PacingOptions {
  Duration stop_max = 20ms;
  double share_min = 0.05;
};

// One round, as the sender reports it. Pages of zeros cost next to nothing and are not counted.
struct CopiedRound {
  std::uint64_t pages = 0;
  Duration took{};
};

class Pacing {
 public:
  enum class Next { copy_and_run, stop };

  explicit Pacing(PacingOptions options = {}) : options_(options) {}

  void copied(const CopiedRound& round);
  // After a scan that found `pages` written ones. `fixed`: f, as far as it was measured.
  // The first call never says stop: nothing is known yet. After `stop`: undefined.
  Next scanned(std::uint64_t pages, Duration fixed);

  // Of the time, that the guest may run during the next round: from 1 down to share_min.
  double share() const { return share_; }
  // That `pages` take to copy, by the latest rounds. nullopt: no round yet.
  std::optional<Duration> copy_time(std::uint64_t pages) const;
  // Until the stop, if the guest goes on as in the last round. nullopt: nobody can tell.
  std::optional<Duration> time_left() const;

 private:
  PacingOptions options_;
  double share_ = 1;
  double page_seconds_ = 0;      // c; 0: not known
  std::uint64_t pages_ = 0;      // P of the latest scan
  std::optional<double> ratio_;  // P' / P of the latest two
  unsigned bad_rounds_ = 0;
};

}  // namespace hf::motion
