#pragma once
// DeltaCache: copies of pages as they were sent last, for those that a guest writes again and again. Each page has one
// place, which another one may take. Memory: 8 bytes a place at once, a page each as it is used. One thread at a time.
#include <memory>
#include <vector>

#include "engine/pages.hpp"

namespace hf::engine {

class DeltaCache {
 public:
  explicit DeltaCache(std::uint64_t bytes)
      : places_(bytes / kPageBytes, kNobody),
        copies_(std::make_unique_for_overwrite<std::byte[]>(places_.size() * kPageBytes)) {}

  // The copy of this page; null: there is none. `index`: any number that is the page's alone, best small.
  std::byte* find(PageNumber page, std::uint64_t index) {
    return !places_.empty() && places_[index % places_.size()] == page ? copy(index) : nullptr;
  }
  // Where to put a copy of the page; null: the cache has no place at all.
  std::byte* place(PageNumber page, std::uint64_t index) {
    if (places_.empty()) return nullptr;
    places_[index % places_.size()] = page;
    return copy(index);
  }
  void forget(PageNumber page, std::uint64_t index) {
    if (find(page, index) != nullptr) places_[index % places_.size()] = kNobody;
  }

 private:
  static constexpr PageNumber kNobody = UINT64_MAX;
  std::byte* copy(std::uint64_t index) { return copies_.get() + (index % places_.size()) * kPageBytes; }

  std::vector<PageNumber> places_;
  std::unique_ptr<std::byte[]> copies_;
};

}  // namespace hf::engine
