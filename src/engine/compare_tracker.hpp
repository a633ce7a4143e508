#pragma once
// CompareTracker: finds written pages by comparing the guest's memory with a copy of all of it. For hosts whose kernel
// cannot tell (PagemapTracker). It costs another time the memory that the guest uses, and each arm() and take_written()
// reads all of that while the guest is stopped: some 0.3 s a GiB. Needs nothing of QEMU.
#include <cstddef>
#include <string>

#include "engine/tracker.hpp"

namespace hf::engine {

class CompareTracker final : public Tracker {
 public:
  // `memory` must outlive it. `why`: why it is used, for describe().
  CompareTracker(const GuestMemory& memory, const std::string& why);
  ~CompareTracker() override;

  // Code::no_room if the machine has not the memory for the copy.
  Status arm() override;
  Result<PageSet> take_written() override;
  void disarm() override;
  const std::string& describe() const override { return description_; }

 private:
  std::byte* copy_of(PageNumber page) const { return copy_ + page * kPageBytes; }
  bool take_if_written(PageNumber page);
  Status reserve();

  const GuestMemory& memory_;
  const std::string description_;
  std::byte* copy_ =
      nullptr;      // address space for all of memory; what is not in copied_ was never touched, reads as 0
  PageSet copied_;  // what the copy has memory for, or had: ordered
};

}  // namespace hf::engine
