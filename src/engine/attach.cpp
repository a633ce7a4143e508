#include "engine/attach.hpp"

#include <utility>

#include "engine/compare_tracker.hpp"
#include "engine/pagemap_tracker.hpp"

namespace hf::engine {

Result<GuestMemory> map_guest_memory(qemu::ShimAnswer& answer) {
  std::vector<GuestMemory::Part> parts;
  for (qemu::SharedRam& ram : answer.ram)
    parts.push_back({{ram.bytes, ram.page_bytes, ram.address}, std::move(ram.file)});
  return GuestMemory::map(std::move(parts));
}

Result<std::unique_ptr<Tracker>> make_tracker(const GuestMemory& memory, qemu::ShimAnswer answer,
                                              bool is_kvm) {
  auto tracker =
      PagemapTracker::open(memory.blocks(), std::move(answer), is_kvm ? Renewal::chunks : Renewal::one);
  if (tracker || tracker.code() == Code::conflict) return tracker;
  return std::unique_ptr<Tracker>(std::make_unique<CompareTracker>(memory, tracker.error().what));
}

}  // namespace hf::engine
