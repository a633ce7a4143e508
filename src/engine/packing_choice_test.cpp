// Goal: batches are packed where the link is the slower part, and only there; and the choice follows when that changes.
#include "engine/packing_choice.hpp"

#include <gtest/gtest.h>

namespace hf::engine {
namespace {
using wire::Packing;

constexpr double kWork = 1 / 2e9;  // seconds a byte: classify and copy

// A link and memory: plays what windows come of the choice.
struct World {
  double link = 125e6;
  double lz4_ratio = 0.5, zstd_ratio = 0.35;

  PackingChoice::Window window(Packing packing) const {
    const double bytes = 2e6;
    const double ratio = packing == Packing::none ? 1 : packing == Packing::lz4 ? lz4_ratio : zstd_ratio;
    const double pack = packing == Packing::none  ? 0
                        : packing == Packing::lz4 ? bytes / 700e6
                                                  : bytes / 250e6;
    const double busy = bytes * kWork + pack;
    const double took = std::max(busy, bytes * ratio / link);
    const auto duration = [](double seconds) { return Duration(static_cast<std::int64_t>(seconds * 1e9)); };
    return {packing,
            static_cast<std::uint64_t>(bytes),
            static_cast<std::uint64_t>(bytes * ratio),
            duration(took),
            duration(took - busy),
            duration(pack)};
  }
  // What was chosen in most of the last windows.
  Packing settle(PackingChoice& choice) const {
    std::array<int, 3> chosen{};
    for (int i = 0; i < 600; ++i) {
      choice.observe(window(choice.best()));
      if (i >= 400) ++chosen[static_cast<std::size_t>(choice.best())];
    }
    return static_cast<Packing>(std::max_element(chosen.begin(), chosen.end()) - chosen.begin());
  }
};

TEST(PackingChoice, without_any_measurement_packs_nothing) {
  EXPECT_EQ(PackingChoice().best(), Packing::none);
}
TEST(PackingChoice, packs_nothing_for_a_link_faster_than_the_processor_packs) {
  PackingChoice choice;
  EXPECT_EQ((World{.link = 3e9}).settle(choice), Packing::none);
}
TEST(PackingChoice, takes_lz4_where_zstd_would_be_slower_than_the_link) {
  PackingChoice choice;
  EXPECT_EQ((World{.link = 250e6}).settle(choice), Packing::lz4);
}
TEST(PackingChoice, takes_zstd_for_a_slow_link) {
  PackingChoice choice;
  EXPECT_EQ((World{.link = 12e6}).settle(choice), Packing::zstd);
}
TEST(PackingChoice, packs_nothing_that_does_not_become_shorter) {
  PackingChoice choice;
  EXPECT_EQ((World{.link = 125e6, .lz4_ratio = 1, .zstd_ratio = 1}).settle(choice), Packing::none);
}
TEST(PackingChoice, follows_when_the_link_or_the_memory_changes) {
  PackingChoice choice;
  EXPECT_EQ((World{.link = 12e6}).settle(choice), Packing::zstd);
  EXPECT_EQ((World{.link = 5e9}).settle(choice), Packing::none);
  EXPECT_EQ((World{.link = 12e6}).settle(choice), Packing::zstd);
  EXPECT_EQ((World{.link = 12e6, .lz4_ratio = 1, .zstd_ratio = 1}).settle(choice), Packing::none);
  EXPECT_EQ((World{.link = 12e6}).settle(choice), Packing::zstd);
}

}  // namespace
}  // namespace hf::engine
