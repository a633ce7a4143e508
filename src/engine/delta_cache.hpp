#pragma once
// DeltaCache: copies of pages as they were sent last, for those that a guest writes again and again. Each page may be
// in one of four places; when all are taken, any of the four goes. Memory: 8 bytes a place at once, a page each as it
// is used. One thread at a time.
#include <memory>
#include <vector>

#include "engine/pages.hpp"

namespace hf::engine {

class DeltaCache {
 public:
  explicit DeltaCache(std::uint64_t bytes)
      : sets_(bytes / kPageBytes / kWays),
        places_(sets_ * kWays, kNobody),
        copies_(std::make_unique_for_overwrite<std::byte[]>(places_.size() * kPageBytes)) {}

  // The copy of this page; null: there is none. `index`: any number that is the page's alone, best small.
  std::byte* find(PageNumber page, std::uint64_t index) {
    const std::size_t place = place_of(page, index);
    return place == kNowhere ? nullptr : copy(place);
  }
  // Where to put a copy of the page, which has none; null: the cache has no place at all.
  std::byte* add(PageNumber page, std::uint64_t index) {
    if (sets_ == 0) return nullptr;
    std::size_t place = place_of(kNobody, index);
    if (place == kNowhere) place = index % sets_ * kWays + next_victim_++ % kWays;
    places_[place] = page;
    return copy(place);
  }
  void forget(PageNumber page, std::uint64_t index) {
    const std::size_t place = place_of(page, index);
    if (place != kNowhere) places_[place] = kNobody;
  }

 private:
  static constexpr std::size_t kWays = 4;
  static constexpr PageNumber kNobody = UINT64_MAX;
  static constexpr std::size_t kNowhere = SIZE_MAX;

  std::size_t place_of(PageNumber page, std::uint64_t index) const {
    if (sets_ == 0) return kNowhere;
    const std::size_t first = index % sets_ * kWays;
    for (std::size_t place = first; place < first + kWays; ++place) {
      if (places_[place] == page) return place;
    }
    return kNowhere;
  }
  std::byte* copy(std::size_t place) { return copies_.get() + place * kPageBytes; }

  std::size_t sets_;
  std::vector<PageNumber> places_;
  std::unique_ptr<std::byte[]> copies_;
  std::size_t next_victim_ = 0;
};

}  // namespace hf::engine
