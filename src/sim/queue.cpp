#include "sim/queue.hpp"

#include <algorithm>
#include <utility>

namespace hf::sim {

void EventQueue::at(Time when, Deed deed) {
  std::uint32_t place = 0;
  if (free_.empty()) {
    place = static_cast<std::uint32_t>(deeds_.size());
    deeds_.push_back(std::move(deed));
  } else {
    place = free_.back();
    free_.pop_back();
    deeds_[place] = std::move(deed);
  }
  heap_.push_back({std::max(when, now_), order_++, place});
  std::push_heap(heap_.begin(), heap_.end(), later);
}

bool EventQueue::run_next(Time until) {
  if (heap_.empty() || heap_.front().when > until) {
    now_ = until;
    return false;
  }
  std::pop_heap(heap_.begin(), heap_.end(), later);
  const Entry next = heap_.back();
  heap_.pop_back();
  now_ = next.when;
  const Deed deed = std::exchange(deeds_[next.deed], nullptr);
  free_.push_back(next.deed);
  deed();
  return true;
}

}  // namespace hf::sim
