#pragma once
// PagemapTracker: tracks a guest's writes with the kernel's marks in QEMU's page tables
// (sys/process/write_tracking.hpp), also those that QEMU and the kernel make for the guest (block I/O, DMA).
// Writes through this process's own mapping of the memory are not seen. Takes 2 MiB of page tables for each GiB
// while it is there; its memory is otherwise bounded by what was written. If this process dies, the kernel ends
// the tracking.
#include <string>
#include <vector>

#include "engine/tracker.hpp"
#include "sys/process/write_tracking.hpp"
#include "sys/qemu/shim_client.hpp"

namespace hf::engine {

// one: found and marked in one call for all of RAM. chunks: found first, then marked anew in the 2 MiB chunks that have
// written pages: KVM drops its own mappings of the whole range that marks are renewed in, and the guest would fault its
// whole working set in again after each scan (kernel: do_pagemap_scan in fs/proc/task_mmu.c).
enum class Renewal { one, chunks };

class PagemapTracker final : public Tracker {
 public:
  // Marks all of memory, which takes long for a large guest: the guest may run meanwhile. `answer`: the shim's, its RAM
  // is that of `blocks`. Code::unsupported and others of track_writes(): use another tracker.
  static Result<std::unique_ptr<Tracker>> open(std::vector<RamBlock> blocks, qemu::ShimAnswer answer,
                                               Renewal renewal);
  ~PagemapTracker() override;

  Status arm() override;
  Result<PageSet> take_written() override;
  void disarm() override;
  const std::string& describe() const override { return description_; }

 private:
  PagemapTracker(std::vector<RamBlock> blocks, qemu::ShimAnswer answer, Renewal renewal);
  Status track();
  Status check_alive() const;

  const std::vector<RamBlock> blocks_;
  const process::UniqueFd userfaultfd_;
  const process::UniqueFd pagemap_;
  const Renewal renewal_;
  const std::string description_ = "PAGEMAP_SCAN";
  bool tracked_ = false;
  bool armed_ = false;
  // What was found, by block. It outlives a scan that failed halfway, so that no page is lost that was marked already.
  std::vector<std::vector<process::AddressRange>> found_;
};

}  // namespace hf::engine
