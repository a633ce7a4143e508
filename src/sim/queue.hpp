#pragma once
// EventQueue: the simulated world's only source of order. Virtual time, one thread; deeds of the same time
// run in the order in which they were put in. Owned by World.
#include <cstdint>
#include <functional>
#include <vector>

#include "base/time.hpp"

namespace hf::sim {

// Since the world began; no host can see it.
using Time = Duration;
using Deed = std::function<void()>;

class EventQueue {
 public:
  Time now() const { return now_; }
  void at(Time when, Deed deed);
  void after(Duration delay, Deed deed) { at(now_ + delay, std::move(deed)); }
  // Runs the next deed due by `until`; false: there is none, and it is `until` now.
  bool run_next(Time until);

 private:
  struct Entry {
    Time when;
    std::uint64_t order;
    std::uint32_t deed;
  };
  // For the heap: the one that comes later is the smaller.
  static bool later(const Entry& a, const Entry& b) {
    return a.when != b.when ? a.when > b.when : a.order > b.order;
  }

  Time now_{0};
  std::uint64_t order_ = 0;
  std::vector<Entry> heap_;
  std::vector<Deed> deeds_;
  std::vector<std::uint32_t> free_;
};

}  // namespace hf::sim
