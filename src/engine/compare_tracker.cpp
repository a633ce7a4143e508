#include "engine/compare_tracker.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/ensure.hpp"
#include "sys/process/host_facts.hpp"
#include "sys/process/small_file.hpp"

namespace hf::engine {
namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

std::string description(const GuestMemory& memory, const std::string& why) {
  const std::uint64_t mib = memory.page_count() * kPageBytes / kMiB;
  return "comparison (takes up to " + std::to_string(mib) + " MiB more, and longer stops): " + why;
}

// The union of two sets.
PageSet both(const PageSet& a, const PageSet& b) {
  PageSet result;
  for (auto left = a.begin(), right = b.begin(); left != a.end() || right != b.end();) {
    const bool take_left = right == b.end() || (left != a.end() && left->first < right->first);
    add_to(result, take_left ? *left++ : *right++);
  }
  return result;
}

}  // namespace

CompareTracker::CompareTracker(const GuestMemory& memory, const std::string& why)
    : memory_(memory), description_(description(memory, why)) {}

CompareTracker::~CompareTracker() { CompareTracker::disarm(); }

Status CompareTracker::reserve() {
  TRY_ASSIGN(const PageSet present, memory_.present());
  TRY_ASSIGN(const std::string meminfo, process::read_small_file("/proc/meminfo"));
  TRY_ASSIGN(const std::uint64_t available_mib, process::parse_memory_mib(meminfo, "MemAvailable:"));
  const std::uint64_t needed_mib = count_of(present) * kPageBytes / kMiB;
  if (needed_mib >= available_mib) {
    return Error{Code::no_room, "Tracking this guest by comparison takes another " +
                                    std::to_string(needed_mib) + " MiB, and " +
                                    std::to_string(available_mib) + " MiB are free on this host."};
  }
  void* copy = ::mmap(nullptr, memory_.page_count() * kPageBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (copy == MAP_FAILED) return from_errno("Cannot make room for a copy of the guest's memory", errno);
  copy_ = static_cast<std::byte*>(copy);
  return {};
}

Status CompareTracker::arm() {
  disarm();
  TRY(reserve());
  if (const auto copied = take_written(); !copied) {
    disarm();
    return copied.error();
  }
  return {};
}

bool CompareTracker::take_if_written(PageNumber page) {
  const std::byte* now = memory_.page(page);
  if (std::memcmp(copy_of(page), now, kPageBytes) == 0) return false;
  std::memcpy(copy_of(page), now, kPageBytes);
  return true;
}

Result<PageSet> CompareTracker::take_written() {
  ENSURE(copy_ != nullptr, "Written pages are asked for before the tracking began.");
  TRY_ASSIGN(const PageSet present, memory_.present());
  PageSet written;
  // Also what was copied once and is a hole now: it reads as zeros, and reading gives it memory again. That is rare.
  for (const PageRange& range : both(present, copied_)) {
    for (PageNumber page = range.first; page < range.first + range.count; ++page) {
      if (take_if_written(page)) add_to(written, {page, 1});
    }
  }
  copied_ = both(present, copied_);
  return written;
}

void CompareTracker::disarm() {
  if (copy_ != nullptr) ::munmap(copy_, memory_.page_count() * kPageBytes);
  copy_ = nullptr;
  copied_.clear();
}

}  // namespace hf::engine
