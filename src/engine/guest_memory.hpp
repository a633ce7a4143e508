#pragma once
// GuestMemory: a VM's RAM, mapped into this process as well: the same pages that the guest sees. Its owner keeps it
// alive as long as anybody copies. Reading and writing it needs no lock: the guest writes whenever it runs, a copy of
// a page that changes meanwhile is wrong and is made again after the next scan (tracker.hpp).
#include <cstddef>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "engine/pages.hpp"
#include "sys/process/unique_fd.hpp"

namespace hf::engine {

// One memory backend of QEMU.
struct RamBlock {
  std::uint64_t bytes = 0;                // a multiple of page_bytes
  std::uint64_t page_bytes = kPageBytes;  // 4096, or a huge page's size
  std::uint64_t address_in_qemu = 0;      // where QEMU has it mapped
  bool operator==(const RamBlock&) const = default;
};

class GuestMemory {
 public:
  // What to map: the files behind the blocks, in order. Each is mapped whole, shared, for reading and writing.
  struct Part {
    RamBlock block;
    process::UniqueFd file;
  };
  // Code::failed if a file cannot be mapped or is shorter than its block.
  static Result<GuestMemory> map(std::vector<Part> parts);
  GuestMemory(GuestMemory&&) noexcept;
  GuestMemory& operator=(GuestMemory&&) noexcept;
  ~GuestMemory();

  const std::vector<RamBlock>& blocks() const { return blocks_; }
  std::uint64_t page_count() const { return page_count_; }
  // The page's bytes in this process. REQUIRES: page < page_count()
  std::byte* page(PageNumber page) const;

  // The pages that have memory at all (SEEK_DATA): what the guest never touched is a hole, reads as zeros and need not
  // be sent.
  Result<PageSet> present() const;
  // Gives these pages' memory back: they read as zeros afterwards. Huge pages: only whole ones are given back, what is
  // left is filled with zeros.
  Status discard(const PageRange& pages);

 private:
  struct Mapping {
    std::byte* memory = nullptr;
    PageNumber first = 0;
    process::UniqueFd file;
  };
  GuestMemory() = default;
  void unmap();
  std::size_t block_of(PageNumber page) const;
  Status discard_in(std::size_t block, std::uint64_t begin, std::uint64_t end);  // bytes within the block

  std::vector<RamBlock> blocks_;
  std::vector<Mapping> mappings_;
  std::uint64_t page_count_ = 0;
};

}  // namespace hf::engine
