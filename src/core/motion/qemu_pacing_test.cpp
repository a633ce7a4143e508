// Goal: QEMU's own migration gets a longer stop only when it needs one and may have it, and one that will not end is
// given up with a sentence that helps. Method: looks every 200 ms at migrations made up of passes of equal length.
#include "core/motion/qemu_pacing.hpp"

#include <gtest/gtest.h>

namespace hf::motion {
namespace {
using Next = QemuPacing::Next;

struct Outcome {
  Duration at{};        // of the stop, or of giving up
  Duration stop_max{};  // then
  bool given_up = false;
};

// Over a link with passes that take `pass` after a first one of `first`, of a guest that fits into a stop of `fits`.
Outcome migrate(Duration first, Duration pass, Duration fits, QemuPacingOptions options = {}) {
  QemuPacing pacing(options);
  for (Duration since = 200ms;; since += 200ms) {
    const bool first_ended = since >= first;
    if (first_ended && pacing.stop_max() >= fits) return {since, pacing.stop_max(), false};
    const auto passes = first_ended ? 2 + static_cast<std::uint64_t>((since - first) / pass) : 1;
    if (pacing.looked(passes, since) == Next::give_up) return {since, pacing.stop_max(), true};
  }
}

TEST(QemuPacing, guest_that_fits_keeps_its_short_stop) {
  const Outcome outcome = migrate(3s, 50ms, 15ms);
  EXPECT_EQ(outcome.stop_max, 20ms);
  EXPECT_EQ(outcome.at, 3s);
}

TEST(QemuPacing, first_pass_alone_lengthens_nothing_however_long_it_takes) {
  QemuPacing pacing;
  for (Duration since = 1s; since < 1000s; since += 1s) ASSERT_EQ(pacing.looked(1, since), Next::go_on);
  EXPECT_EQ(pacing.stop_max(), 20ms);
}

TEST(QemuPacing, guest_that_does_not_fit_gets_the_least_doubling_that_it_fits_into) {
  EXPECT_EQ(migrate(3s, 50ms, 21ms).stop_max, 40ms);
  EXPECT_EQ(migrate(3s, 50ms, 100ms).stop_max, 160ms);
  EXPECT_EQ(migrate(3s, 50ms, 1s).stop_max, 1s);
  EXPECT_LE(migrate(3s, 50ms, 1s).at, 3s + 6 * QemuPacing::kStepLeast + 200ms);
}

TEST(QemuPacing, stop_is_lengthened_no_sooner_than_a_pass_has_ended_without_it) {
  QemuPacing pacing;
  EXPECT_EQ(pacing.looked(2, 10s), Next::go_on);
  EXPECT_EQ(pacing.looked(2, 60s), Next::go_on) << "the second pass is still under way";
  EXPECT_EQ(pacing.looked(3, 61s), Next::aim_longer);
  EXPECT_EQ(pacing.stop_max(), 40ms);
  EXPECT_EQ(pacing.looked(4, 61s + QemuPacing::kStepLeast / 2), Next::go_on) << "too soon";
  EXPECT_EQ(pacing.looked(4, 61s + QemuPacing::kStepLeast), Next::aim_longer);
  EXPECT_EQ(pacing.stop_max(), 80ms);
}

TEST(QemuPacing, all_steps_fit_into_the_time_before_it_is_given_up) {
  for (const Duration pass : {Duration(50ms), Duration(5s), Duration(90s)}) {
    const Outcome outcome = migrate(90s, pass, 1s);
    EXPECT_FALSE(outcome.given_up) << pass / 1ms;
    EXPECT_EQ(outcome.stop_max, 1s) << pass / 1ms;
  }
}

TEST(QemuPacing, stop_that_the_user_named_is_kept_and_what_does_not_fit_into_it_is_given_up) {
  const Outcome outcome = migrate(3s, 50ms, 60ms, {50ms, true});
  EXPECT_TRUE(outcome.given_up);
  EXPECT_EQ(outcome.stop_max, 50ms);
  EXPECT_GT(outcome.at, 3s + QemuPacing::kLeast);
  EXPECT_LE(outcome.at, 3s + QemuPacing::kLeast + 400ms);
}

TEST(QemuPacing, guest_that_never_fits_is_given_up_after_ten_times_its_first_pass) {
  const Outcome outcome = migrate(10s, 50ms, 2s);
  EXPECT_TRUE(outcome.given_up);
  EXPECT_EQ(outcome.stop_max, QemuPacing::kStopMost);
  EXPECT_GT(outcome.at, 110s);
  EXPECT_LE(outcome.at, 110s + 400ms);
}

TEST(QemuPacing, whoever_gives_up_says_what_to_do) {
  const Error why = QemuPacing({50ms, true}).given_up(123'456'789, 99);
  EXPECT_EQ(why.code, Code::failed);
  EXPECT_EQ(why.what,
            "QEMU's own migration does not come to an end with a stop of 50 ms: the guest writes 123 MB/s, and QEMU "
            "holds it back for 99 % of its time. Allow a longer stop (--max-stop), or take Holdfast's engine (--engine "
            "holdfast), which slows a guest down until it arrives.");
}

}  // namespace
}  // namespace hf::motion
