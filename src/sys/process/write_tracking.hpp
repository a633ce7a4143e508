#pragma once
// The kernel's tracking of written pages in another process: a userfaultfd of that process in asynchronous mode clears
// the mark of a page that is written, PAGEMAP_SCAN on its /proc/<pid>/pagemap reads and sets the marks. Stateless; each
// function may be called from any thread, for different processes at the same time.
// Source: kernel, Documentation/admin-guide/mm/{userfaultfd,pagemap}.rst and fs/proc/task_mmu.c.
//
// Linux 6.9 is needed, not 6.7: before "fs/proc/task_mmu: fix uffd-wp confusion in pagemap_scan_pmd_entry()" a written
// page that the kernel moves to another place during the scan can be taken for one that was not written.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace hf::process {

struct AddressRange {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;  // exclusive
  bool operator==(const AddressRange&) const = default;
};

// Why this kernel cannot; empty: it can. `release` as uname() gives it, `pagemap` an open pagemap of any process.
std::string why_no_pagemap_scan(std::string_view release, int pagemap);

// From now on writes to the range are seen. Every page gets a mark of its own, also those that have no memory yet, and
// huge mappings of ordinary memory are split: a page without a mark is a written one, whatever the kernel did with it
// (reclaim drops mappings, and with them what it knew). Takes a page table's memory, 2 MiB for each GiB.
// REQUIRES: whole pages of one mapping. Code::conflict if another userfaultfd tracks it, Code::unsupported if the
// memory cannot be tracked.
Status track_writes(int userfaultfd, const AddressRange& range);
// Code::unavailable if the process has ended. Asked after a scan it tells that the scan saw all.
Status check_tracked(int userfaultfd, const AddressRange& range);
void untrack_writes(int userfaultfd, const AddressRange& range);

enum class Marks { keep, renew };  // renew: what is reported counts as not written from now on
// Appends the written ranges, in order, not touching but where a range was cut. After an error `found` has what was
// found (and perhaps renewed) before it. Code::failed also where a part of the range is no longer tracked.
// A process that has ended has no written pages: see check_tracked().
// REQUIRES with Marks::renew: begin and end at a multiple of 2 MiB and of the huge page's size, or at the ends of the
// mapping.
Status scan_written(int pagemap, const AddressRange& range, Marks marks, std::vector<AddressRange>& found);

}  // namespace hf::process
