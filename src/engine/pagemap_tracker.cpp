#include "engine/pagemap_tracker.hpp"

#include <algorithm>
#include <utility>

#include "base/ensure.hpp"

namespace hf::engine {
namespace {
using process::AddressRange;

constexpr std::uint64_t kChunkBytes = std::uint64_t{2} << 20;

AddressRange range_of(const RamBlock& block) {
  return {block.address_in_qemu, block.address_in_qemu + block.bytes};
}

// Ordered and disjoint, from ranges in any order.
std::vector<AddressRange> merged(std::vector<AddressRange> ranges) {
  std::sort(ranges.begin(), ranges.end(), [](const auto& a, const auto& b) { return a.begin < b.begin; });
  std::vector<AddressRange> result;
  for (const AddressRange& range : ranges) {
    if (result.empty() || result.back().end < range.begin) {
      result.push_back(range);
    } else {
      result.back().end = std::max(result.back().end, range.end);
    }
  }
  return result;
}

// The whole chunks around the ranges, within the block.
std::vector<AddressRange> chunks_around(const std::vector<AddressRange>& ranges, const RamBlock& block) {
  const std::uint64_t chunk = std::max(kChunkBytes, block.page_bytes);
  const AddressRange all = range_of(block);
  std::vector<AddressRange> chunks;
  for (const AddressRange& range : ranges) {
    chunks.push_back({std::max(range.begin / chunk * chunk, all.begin),
                      std::min((range.end + chunk - 1) / chunk * chunk, all.end)});
  }
  return merged(std::move(chunks));
}

}  // namespace

PagemapTracker::PagemapTracker(std::vector<RamBlock> blocks, qemu::ShimAnswer answer, Renewal renewal)
    : blocks_(std::move(blocks)),
      userfaultfd_(std::move(answer.userfaultfd)),
      pagemap_(std::move(answer.pagemap)),
      renewal_(renewal),
      found_(blocks_.size()) {}

Result<std::unique_ptr<Tracker>> PagemapTracker::open(std::vector<RamBlock> blocks, qemu::ShimAnswer answer,
                                                      Renewal renewal) {
  if (!answer.why_not_tracked.empty()) return Error{Code::unsupported, answer.why_not_tracked};
  std::unique_ptr<PagemapTracker> tracker(new PagemapTracker(std::move(blocks), std::move(answer), renewal));
  TRY(tracker->track());
  return std::unique_ptr<Tracker>(std::move(tracker));
}

PagemapTracker::~PagemapTracker() { PagemapTracker::disarm(); }

Status PagemapTracker::track() {
  tracked_ = true;  // in part, if it fails: disarm() undoes it
  for (const RamBlock& block : blocks_) {
    if (const Status tracked = process::track_writes(userfaultfd_.get(), range_of(block)); !tracked.ok()) {
      disarm();
      return tracked;
    }
  }
  return {};
}

Status PagemapTracker::arm() {
  if (!tracked_) TRY(track());
  for (std::size_t i = 0; i < blocks_.size(); ++i)
    TRY(process::scan_written(pagemap_.get(), range_of(blocks_[i]), process::Marks::renew, found_[i]));
  TRY(check_alive());
  for (auto& found : found_) found.clear();
  armed_ = true;
  return {};
}

Status PagemapTracker::check_alive() const {
  for (const RamBlock& block : blocks_) TRY(process::check_tracked(userfaultfd_.get(), range_of(block)));
  return {};
}

// safety: a page is marked as not written only in a call that also reports it, and what was reported is kept until it
// is handed out: a page that was written is never passed over.
Result<PageSet> PagemapTracker::take_written() {
  ENSURE(armed_, "Written pages are asked for before the tracking began.");
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const RamBlock& block = blocks_[i];
    std::vector<AddressRange> parts = {range_of(block)};
    if (renewal_ == Renewal::chunks) {
      std::vector<AddressRange> written;
      TRY(process::scan_written(pagemap_.get(), range_of(block), process::Marks::keep, written));
      parts = chunks_around(written, block);
    }
    for (const AddressRange& part : parts)
      TRY(process::scan_written(pagemap_.get(), part, process::Marks::renew, found_[i]));
  }
  TRY(check_alive());
  PageSet pages;
  PageNumber first = 0;
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    for (const AddressRange& range : merged(std::exchange(found_[i], {}))) {
      add_to(pages, {first + (range.begin - blocks_[i].address_in_qemu) / kPageBytes,
                     (range.end - range.begin) / kPageBytes});
    }
    first += blocks_[i].bytes / kPageBytes;
  }
  return pages;
}

void PagemapTracker::disarm() {
  if (!std::exchange(tracked_, false)) return;
  armed_ = false;
  for (const RamBlock& block : blocks_) process::untrack_writes(userfaultfd_.get(), range_of(block));
}

}  // namespace hf::engine
