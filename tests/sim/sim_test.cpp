// Goal: the simulator itself can be relied on: the same seed is the same run, runs do something, scenarios
// refuse nonsense, and every kept bug has its negative test.
#include <gtest/gtest.h>

#include "sim/run.hpp"
#include "sim/scenario.hpp"

namespace hf::sim {
namespace {

TEST(Simulator, same_seed_is_the_same_run_to_the_last_event) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    const auto once = run_seed(seed, ha::KeptBug::none, false),
               twice = run_seed(seed, ha::KeptBug::none, false);
    EXPECT_EQ(once.hash, twice.hash) << seed;
    EXPECT_EQ(once.events, twice.events) << seed;
  }
}

TEST(Simulator, log_does_not_change_the_run) {
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    const auto silent = run_seed(seed, ha::KeptBug::none, false),
               logged = run_seed(seed, ha::KeptBug::none, true);
    EXPECT_EQ(silent.hash, logged.hash) << seed;
    EXPECT_FALSE(logged.lines.empty());
  }
}

TEST(Simulator, runs_reach_takeovers_freezes_and_moves) {
  Checker::Counts sum;
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    const auto result = run_seed(seed, ha::KeptBug::none, false);
    sum.takeovers += result.counts.takeovers;
    sum.freezes += result.counts.freezes;
    sum.moves += result.counts.moves;
  }
  EXPECT_GT(sum.takeovers, 0u);
  EXPECT_GT(sum.freezes, 0u);
  EXPECT_GT(sum.moves, 0u);
}

TEST(Scenario, unknown_word_is_invalid_and_named) {
  const auto result = run_scenario("hosts 2\n", "1s power host9 off\n2s end\n");
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.code(), Code::invalid);
  EXPECT_NE(result.error().what.find("power host9 off"), std::string::npos);
}

TEST(Scenario, commands_without_an_end_are_invalid) {
  EXPECT_EQ(run_scenario("hosts 2\n", "1s power host1 off\n").code(), Code::invalid);
}

}  // namespace
}  // namespace hf::sim
