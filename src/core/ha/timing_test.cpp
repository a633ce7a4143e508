// Goal: the inequalities that the safety argument needs hold for every base that is accepted, and are refused
// otherwise.
#include "core/ha/timing.hpp"

#include <gtest/gtest.h>

namespace hf::ha {
namespace {

TEST(Timing, default_is_what_one_second_derives) {
  const Timing derived = Timing::from_heartbeat(1s);
  const Timing standard;
  EXPECT_TRUE(derived.validate().ok());
  EXPECT_EQ(derived.freeze_after, standard.freeze_after);
  EXPECT_EQ(derived.takeover_after, standard.takeover_after);
  EXPECT_EQ(derived.lease_ttl, standard.lease_ttl);
  EXPECT_EQ(derived.tick, standard.tick);
}

TEST(Timing, every_accepted_heartbeat_leaves_a_margin) {
  for (Duration heartbeat = 400ms; heartbeat <= 10s; heartbeat += 100ms) {
    EXPECT_TRUE(Timing::from_heartbeat(heartbeat).validate().ok()) << heartbeat.count();
  }
}

TEST(Timing, heartbeat_out_of_range_is_invalid) {
  EXPECT_EQ(Timing::from_heartbeat(100ms).validate().code(), Code::invalid);
  EXPECT_EQ(Timing::from_heartbeat(11s).validate().code(), Code::invalid);
}

TEST(Timing, freeze_as_late_as_takeover_is_invalid) {
  Timing t;
  t.freeze_after = t.takeover_after;
  EXPECT_EQ(t.validate().code(), Code::invalid);
  Timing drifting;
  drifting.drift_permille = 100;
  EXPECT_EQ(drifting.validate().code(), Code::invalid);
}

}  // namespace
}  // namespace hf::ha
