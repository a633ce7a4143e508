#pragma once
// Pages: how the engine names guest memory. A VM's RAM blocks (memory backends) are laid one after the other, in the
// order of QEMU's command line, so that a page is one number, the same on both hosts.
#include <algorithm>
#include <cstdint>
#include <vector>

namespace hf::engine {

inline constexpr std::uint64_t kPageBytes = 4096;

using PageNumber = std::uint64_t;

struct PageRange {
  PageNumber first = 0;
  std::uint64_t count = 0;
  bool operator==(const PageRange&) const = default;
};

// Ordered, disjoint, not touching.
using PageSet = std::vector<PageRange>;

inline std::uint64_t count_of(const PageSet& pages) {
  std::uint64_t count = 0;
  for (const PageRange& range : pages) count += range.count;
  return count;
}

// Adds a range that does not begin before the set's last one.
inline void add_to(PageSet& pages, const PageRange& range) {
  if (pages.empty() || pages.back().first + pages.back().count < range.first) {
    pages.push_back(range);
  } else {
    PageRange& last = pages.back();
    last.count = std::max(last.first + last.count, range.first + range.count) - last.first;
  }
}

}  // namespace hf::engine
