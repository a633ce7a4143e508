// Goal: exactly the JSON that nests too deep is found, whatever its texts hold.
#include "base/json_nesting.hpp"

#include <gtest/gtest.h>

#include <string>

namespace hf {
namespace {

std::string nested(int levels) {
  const auto count = static_cast<std::size_t>(levels);
  return std::string(count, '[') + std::string(count, ']');
}

TEST(JsonNesting, the_last_allowed_level_passes_and_one_more_does_not) {
  EXPECT_FALSE(nests_too_deep(nested(kJsonLevelsMax)));
  EXPECT_TRUE(nests_too_deep(nested(kJsonLevelsMax + 1)));
  EXPECT_TRUE(nests_too_deep("{\"a\":" + nested(kJsonLevelsMax) + "}"));
}

TEST(JsonNesting, brackets_side_by_side_and_in_texts_do_not_count) {
  std::string wide;
  for (int i = 0; i < 2 * kJsonLevelsMax; ++i) wide += "[],";
  EXPECT_FALSE(nests_too_deep("[" + wide + "{}]"));
  const std::string text = "\"" + nested(2 * kJsonLevelsMax).substr(0, 2 * kJsonLevelsMax) + "\"";
  EXPECT_FALSE(nests_too_deep(text));
}

TEST(JsonNesting, an_escaped_quote_does_not_end_a_text) {
  const std::string open(2 * kJsonLevelsMax, '[');
  EXPECT_FALSE(nests_too_deep(R"("\")" + open + "\""));
  EXPECT_TRUE(nests_too_deep(R"(["\\",)" + open));
}

}  // namespace
}  // namespace hf
