#pragma once
// Tracker: which pages a guest has written. Two ways: PAGEMAP_SCAN (pagemap_tracker.hpp; Linux 6.9 or later and a
// QEMU that runs with our shim) and comparison with a copy of all of RAM (compare_tracker.hpp; slow, works anywhere).
// One thread at a time.
#include <memory>
#include <string>

#include "base/result.hpp"
#include "engine/guest_memory.hpp"
#include "engine/pages.hpp"

namespace hf::engine {

class Tracker {
 public:
  virtual ~Tracker() = default;

  // From now on writes are seen. REQUIRES: the guest is stopped and its block I/O drained (QMP `stop`).
  // Afterwards every page counts as not written.
  virtual Status arm() = 0;
  // The pages written since arm() or the last take_written(); they count as not written from now on.
  // safety: REQUIRES: the guest is stopped and its block I/O drained. A scan while a DMA is in flight marks a page as
  // not written that the DMA then changes unseen, and the copy of the VM has a wrong page.
  virtual Result<PageSet> take_written() = 0;
  // Ends the tracking; the guest pays nothing for it afterwards. The destructor does it as well.
  virtual void disarm() = 0;

  // For people: "PAGEMAP_SCAN", or "comparison (takes up to 512 MiB more, and longer stops): the kernel here is 6.1".
  virtual const std::string& describe() const = 0;
};

}  // namespace hf::engine
