// Goal: the copy of any guest ends, within the promised number of rounds, and guests that converge by themselves are
// not slowed down. Method: model guests that write at a rate into a working set, over links of any speed.
#include "core/motion/pacing.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/rng.hpp"

namespace hf::motion {
namespace {
using Seconds = std::chrono::duration<double>;

struct Guest {
  std::uint64_t pages = 65'536;        // 256 MiB
  double written_a_second = 0;         // pages, at full speed
  std::uint64_t working_set = 65'536;  // that it writes to
  double copied_a_second = 25'000;     // 100 MB/s
};

struct Outcome {
  unsigned rounds = 0;
  double share = 1;
  Duration last_copy{};
};

Outcome move(const Guest& guest, PacingOptions options = {}, Duration fixed = 8ms) {
  Pacing pacing(options);
  Outcome outcome;
  std::uint64_t pages = guest.pages;
  for (; outcome.rounds < 1000; ++outcome.rounds) {
    const Seconds took(static_cast<double>(pages) / guest.copied_a_second);
    pacing.copied({pages, std::chrono::round<Duration>(took)});
    pages = std::min(guest.working_set,
                     static_cast<std::uint64_t>(took.count() * guest.written_a_second * pacing.share()) + 20);
    if (pacing.scanned(pages, fixed) == Pacing::Next::stop) break;
  }
  outcome.share = pacing.share();
  outcome.last_copy =
      std::chrono::round<Duration>(Seconds(static_cast<double>(pages) / guest.copied_a_second));
  return outcome;
}

TEST(Pacing, idle_guest_is_stopped_after_one_round) {
  const Outcome outcome = move({});
  EXPECT_EQ(outcome.rounds, 0U);
  EXPECT_EQ(outcome.share, 1);
}

TEST(Pacing, guest_slower_than_the_link_is_not_slowed_down_and_keeps_the_target) {
  for (double rate : {1'000., 5'000., 10'000., 15'000.}) {
    const Outcome outcome = move({.written_a_second = rate});
    EXPECT_EQ(outcome.share, 1) << rate;
    EXPECT_LE(outcome.last_copy, 12ms) << rate;
    EXPECT_LE(outcome.rounds, 20U) << rate;
  }
}

TEST(Pacing, guest_faster_than_the_link_is_slowed_down_no_more_than_needed) {
  for (double rate : {25'000., 50'000., 150'000.}) {
    const Outcome outcome = move({.written_a_second = rate});
    EXPECT_LT(outcome.share, 1) << rate;
    EXPECT_LE(outcome.last_copy, 12ms) << rate;
    EXPECT_GE(outcome.share * rate / 25'000, 0.7 * 0.7 * 0.7) << rate;
  }
}

TEST(Pacing, guest_that_outruns_the_link_even_at_the_least_share_is_stopped_all_the_same) {
  const Outcome outcome = move({.written_a_second = 2'000'000});
  EXPECT_DOUBLE_EQ(outcome.share, 0.05);
  EXPECT_GT(outcome.last_copy, 12ms);
  EXPECT_LE(outcome.rounds, 12U);
}

TEST(Pacing, one_burst_slows_nothing_down) {
  Pacing pacing;
  pacing.copied({60'000, 1s});
  EXPECT_EQ(pacing.scanned(20'000, 8ms), Pacing::Next::copy_and_run);
  EXPECT_EQ(pacing.scanned(40'000, 8ms), Pacing::Next::copy_and_run);
  EXPECT_EQ(pacing.share(), 1);
  EXPECT_FALSE(pacing.time_left());
  EXPECT_EQ(pacing.scanned(10'000, 8ms), Pacing::Next::copy_and_run);
  EXPECT_EQ(pacing.share(), 1);
  EXPECT_TRUE(pacing.time_left());
  EXPECT_EQ(pacing.scanned(500, 8ms), Pacing::Next::stop);
}

TEST(Pacing, slow_down_grows_gradually) {
  Pacing pacing;
  pacing.copied({60'000, 1s});
  double before = 1;
  for (int round = 0; round < 9; ++round) {
    ASSERT_EQ(pacing.scanned(50'000, 8ms), Pacing::Next::copy_and_run);
    EXPECT_GE(pacing.share(), before * 0.69);
    before = pacing.share();
  }
  EXPECT_NEAR(before, 0.082, 0.001);
}

TEST(Pacing, target_that_the_fixed_part_uses_up_does_not_slow_an_idle_guest) {
  EXPECT_EQ(move({}, {}, 40ms).share, 1);
  EXPECT_EQ(move({.written_a_second = 5'000}, {}, 40ms).share, 1);
}

TEST(Pacing, pages_of_zeros_alone_say_nothing) {
  Pacing pacing;
  pacing.copied({0, 1s});
  EXPECT_FALSE(pacing.copy_time(1));
  EXPECT_EQ(pacing.scanned(0, 0ms), Pacing::Next::copy_and_run);
}

TEST(Pacing, few_pages_do_not_spoil_what_is_known_of_the_link) {
  Pacing pacing;
  pacing.copied({100'000, 1s});
  pacing.copied({3, 50ms});  // a round trip
  EXPECT_EQ(pacing.copy_time(1000), 10ms);
}

// Each round anything between nothing and all of RAM, ten thousand times.
TEST(Pacing, any_guest_at_all_is_stopped_within_the_bound) {
  Rng rng(7);
  for (int run = 0; run < 10'000; ++run) {
    Pacing pacing;
    pacing.copied({1 << 20, 10s});
    unsigned rounds = 0;
    while (pacing.scanned(rng.below(1 << 20), 8ms) != Pacing::Next::stop) ASSERT_LT(++rounds, 200U);
  }
}

}  // namespace
}  // namespace hf::motion
