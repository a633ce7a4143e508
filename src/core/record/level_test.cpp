// Goal: a program never begins to work in a cluster whose records it may misread.
#include "core/record/level.hpp"

#include <gtest/gtest.h>

#include "core/record/records.hpp"

namespace hf::record {
namespace {

TEST(Level, cluster_of_this_level_or_a_lower_one_is_joined) {
  for (int level = 1; level <= kLevel; ++level) EXPECT_TRUE(check_level(level).ok()) << level;
}

TEST(Level, cluster_of_a_higher_level_is_refused_with_what_to_do) {
  const Status refused = check_level(kLevel + 1);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.code(), Code::unsupported);
  EXPECT_EQ(refused.error().what,
            "The hosts of this cluster have a later version of Holdfast, whose records the one on this machine does "
            "not know. Install theirs here.");
}

}  // namespace
}  // namespace hf::record
