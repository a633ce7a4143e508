#include "sys/process/write_tracking.hpp"

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <utility>

namespace hf::process {
namespace {

// Newer than Debian 12's headers: linux/fs.h of Linux 6.7.
struct PageRegion {
  std::uint64_t start, end, categories;
};
struct PmScanArg {
  std::uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
  std::uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
constexpr unsigned long kPagemapScan = _IOWR('f', 16, PmScanArg);
constexpr std::uint64_t kPageIsWritten = 1 << 1;
constexpr std::uint64_t kWpMatching = 1 << 0;
constexpr std::uint64_t kCheckWpAsync =
    1 << 1;  // fails where the range is not tracked, instead of passing over it

constexpr std::pair kFirstKernel{6, 9};

std::pair<int, int> version_of(std::string_view release) {
  std::pair<int, int> version;
  const char* end = release.data() + release.size();
  const auto major = std::from_chars(release.data(), end, version.first);
  if (major.ec == std::errc{} && major.ptr != end && *major.ptr == '.')
    std::from_chars(major.ptr + 1, end, version.second);
  return version;
}

// The walk is over written pages and nothing else: only then does the kernel also report a page whose mapping it
// dropped.
PmScanArg scan_argument(const AddressRange& range, Marks marks) {
  PmScanArg argument{};
  argument.size = sizeof argument;
  argument.flags = kCheckWpAsync | (marks == Marks::renew ? kWpMatching : 0);
  argument.start = range.begin;
  argument.end = range.end;
  argument.category_mask = kPageIsWritten;
  argument.return_mask = kPageIsWritten;
  return argument;
}

// 0 or errno. Once more changes nothing.
int register_range(int userfaultfd, const AddressRange& range) {
  uffdio_register registration{};
  registration.range = {range.begin, range.end - range.begin};
  registration.mode = UFFDIO_REGISTER_MODE_WP;
  return ::ioctl(userfaultfd, UFFDIO_REGISTER, &registration) < 0 ? errno : 0;
}

}  // namespace

std::string why_no_pagemap_scan(std::string_view release, int pagemap) {
  const std::string needs = "Linux 6.9 or later is needed";
  if (version_of(release) < kFirstKernel) return "the kernel here is " + std::string(release) + ", " + needs;
  PmScanArg argument = scan_argument({}, Marks::keep);
  if (::ioctl(pagemap, kPagemapScan, &argument) < 0)
    return std::string("this kernel has no PAGEMAP_SCAN (") + std::strerror(errno) + "), " + needs;
  return {};
}

Status track_writes(int userfaultfd, const AddressRange& range) {
  if (const int problem = register_range(userfaultfd, range); problem != 0) {
    if (problem == EBUSY) return Error{Code::conflict, "Another process tracks this memory already."};
    if (problem == EINVAL) return Error{Code::unsupported, "Memory on this file system cannot be tracked."};
    return from_errno("Cannot track memory", problem);
  }
  uffdio_writeprotect protection{};
  protection.range = {range.begin, range.end - range.begin};
  protection.mode = UFFDIO_WRITEPROTECT_MODE_WP;
  while (::ioctl(userfaultfd, UFFDIO_WRITEPROTECT, &protection) < 0) {
    const int problem = errno;
    if (problem == EAGAIN) continue;  // its memory map is just being changed
    untrack_writes(userfaultfd, range);
    return from_errno("Cannot mark memory as not written", problem);
  }
  return {};
}

Status check_tracked(int userfaultfd, const AddressRange& range) {
  if (register_range(userfaultfd, range) == 0) return {};
  return Error{Code::unavailable, "The guest's memory is gone: QEMU has ended."};
}

void untrack_writes(int userfaultfd, const AddressRange& range) {
  uffdio_range all{range.begin, range.end - range.begin};
  (void)::ioctl(userfaultfd, UFFDIO_UNREGISTER, &all);  // it fails where there is nothing to undo
}

// Always with room for results: Linux before 6.17 crashes on a renewal without, where there are huge pages ("fs/proc/
// task_mmu: check p->vec_buf for NULL").
Status scan_written(int pagemap, const AddressRange& range, Marks marks, std::vector<AddressRange>& found) {
  std::array<PageRegion, 1024> regions;
  PmScanArg argument = scan_argument(range, marks);
  argument.vec = reinterpret_cast<std::uintptr_t>(regions.data());
  argument.vec_len = regions.size();
  while (argument.start < range.end) {
    argument.walk_end = argument.start;
    const int count = ::ioctl(pagemap, kPagemapScan, &argument);
    if (count < 0 && errno == EPERM)
      return Error{Code::failed, "A part of the guest's memory is no longer tracked."};
    if (count < 0) return from_errno("Cannot find the pages that were written", errno);
    for (int i = 0; i < count; ++i)
      found.push_back({regions[static_cast<std::size_t>(i)].start, regions[static_cast<std::size_t>(i)].end});
    if (argument.walk_end <= argument.start)
      return Error{Code::failed, "The kernel's search for written pages does not get on."};
    argument.start = argument.walk_end;
  }
  return {};
}

}  // namespace hf::process
