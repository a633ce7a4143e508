#include "engine/guest_memory.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/ensure.hpp"

namespace hf::engine {

Result<GuestMemory> GuestMemory::map(std::vector<Part> parts) {
  GuestMemory made;
  for (Part& part : parts) {
    struct stat info{};
    if (::fstat(part.file.get(), &info) < 0 || static_cast<std::uint64_t>(info.st_size) < part.block.bytes)
      return Error{Code::failed, "A file of guest memory is shorter than the memory in it."};
    void* memory = ::mmap(nullptr, part.block.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, part.file.get(), 0);
    if (memory == MAP_FAILED) return Error{Code::failed, from_errno("Cannot map guest memory", errno).what};
    made.mappings_.push_back({static_cast<std::byte*>(memory), made.page_count_, std::move(part.file)});
    made.blocks_.push_back(part.block);
    made.page_count_ += part.block.bytes / kPageBytes;
  }
  return made;
}

GuestMemory::GuestMemory(GuestMemory&& other) noexcept { *this = std::move(other); }
GuestMemory& GuestMemory::operator=(GuestMemory&& other) noexcept {
  if (this == &other) return *this;
  unmap();
  blocks_ = std::exchange(other.blocks_, {});
  mappings_ = std::exchange(other.mappings_, {});
  page_count_ = std::exchange(other.page_count_, 0);
  return *this;
}
GuestMemory::~GuestMemory() { unmap(); }

void GuestMemory::unmap() {
  for (std::size_t i = 0; i < mappings_.size(); ++i) ::munmap(mappings_[i].memory, blocks_[i].bytes);
  mappings_.clear();
}

std::byte* GuestMemory::page(PageNumber page) const {
  std::size_t block = mappings_.size() - 1;
  while (mappings_[block].first > page) --block;
  return mappings_[block].memory + (page - mappings_[block].first) * kPageBytes;
}

Result<PageSet> GuestMemory::present() const {
  PageSet present;
  for (std::size_t i = 0; i < mappings_.size(); ++i) {
    const auto bytes = static_cast<off_t>(blocks_[i].bytes);
    for (off_t at = 0; at < bytes;) {
      const off_t data = ::lseek(mappings_[i].file.get(), at, SEEK_DATA);
      if (data < 0 || data >= bytes) break;
      at = std::min(bytes, ::lseek(mappings_[i].file.get(), data, SEEK_HOLE));
      const auto first = static_cast<PageNumber>(data) / kPageBytes;
      present.push_back({mappings_[i].first + first, static_cast<PageNumber>(at) / kPageBytes - first});
    }
  }
  return present;
}

Status GuestMemory::discard(const PageRange& pages) {
  for (std::size_t i = 0; i < mappings_.size(); ++i) {
    const PageNumber begin = std::max(pages.first, mappings_[i].first);
    const PageNumber end =
        std::min(pages.first + pages.count, mappings_[i].first + blocks_[i].bytes / kPageBytes);
    if (begin >= end) continue;
    if (::fallocate(mappings_[i].file.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                    static_cast<off_t>((begin - mappings_[i].first) * kPageBytes),
                    static_cast<off_t>((end - begin) * kPageBytes)) != 0)
      return from_errno("Cannot give guest memory back", errno);
  }
  return {};
}

}  // namespace hf::engine
