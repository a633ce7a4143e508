#include "engine/guest_memory.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <utility>

#include "base/ensure.hpp"

namespace hf::engine {
namespace {

bool is_made_of_pages(const RamBlock& block) {
  const std::uint64_t page = block.page_bytes;
  return page >= kPageBytes && (page & (page - 1)) == 0 && block.bytes > 0 && block.bytes % page == 0;
}

// The parts of a file with data, in bytes.
Status add_present(int file, std::uint64_t bytes, PageNumber first, PageSet& present) {
  for (std::uint64_t at = 0; at < bytes;) {
    const off_t data = ::lseek(file, static_cast<off_t>(at), SEEK_DATA);
    if (data < 0 && errno == ENXIO) return {};  // nothing but a hole up to the end
    if (data < 0) return from_errno("Cannot tell which memory is in use", errno);
    const off_t hole = ::lseek(file, data, SEEK_HOLE);
    if (hole < 0) return from_errno("Cannot tell which memory is in use", errno);
    const std::uint64_t begin = static_cast<std::uint64_t>(data) / kPageBytes;
    const std::uint64_t end =
        (std::min(static_cast<std::uint64_t>(hole), bytes) + kPageBytes - 1) / kPageBytes;
    if (begin < end) add_to(present, {first + begin, end - begin});
    at = end * kPageBytes;
  }
  return {};
}

}  // namespace

Result<GuestMemory> GuestMemory::map(std::vector<Part> parts) {
  GuestMemory made;
  for (Part& part : parts) {
    if (!is_made_of_pages(part.block))
      return Error{Code::failed, "A part of the guest's memory has no whole pages."};
    struct stat info{};
    if (::fstat(part.file.get(), &info) < 0)
      return from_errno("Cannot look at a file of guest memory", errno);
    if (static_cast<std::uint64_t>(info.st_size) < part.block.bytes)
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

std::size_t GuestMemory::block_of(PageNumber page) const {
  ENSURE(page < page_count_, "A page beyond the guest's memory.");
  std::size_t block = mappings_.size() - 1;
  while (mappings_[block].first > page) --block;
  return block;
}

std::byte* GuestMemory::page(PageNumber page) const {
  const Mapping& mapping = mappings_[block_of(page)];
  return mapping.memory + (page - mapping.first) * kPageBytes;
}

Result<PageSet> GuestMemory::present() const {
  PageSet present;
  for (std::size_t i = 0; i < mappings_.size(); ++i)
    TRY(add_present(mappings_[i].file.get(), blocks_[i].bytes, mappings_[i].first, present));
  return present;
}

Status GuestMemory::discard(const PageRange& pages) {
  PageNumber next = pages.first;
  for (const PageNumber end = pages.first + pages.count; next < end;) {
    const std::size_t block = block_of(next);
    const PageNumber first = mappings_[block].first;
    const PageNumber stop = std::min(end, first + blocks_[block].bytes / kPageBytes);
    TRY(discard_in(block, (next - first) * kPageBytes, (stop - first) * kPageBytes));
    next = stop;
  }
  return {};
}

Status GuestMemory::discard_in(std::size_t block, std::uint64_t begin, std::uint64_t end) {
  const Mapping& mapping = mappings_[block];
  const std::uint64_t page = blocks_[block].page_bytes;
  const std::uint64_t whole_begin = (begin + page - 1) / page * page, whole_end = end / page * page;
  if (whole_begin >= whole_end) {
    std::memset(mapping.memory + begin, 0, end - begin);
    return {};
  }
  std::memset(mapping.memory + begin, 0, whole_begin - begin);
  std::memset(mapping.memory + whole_end, 0, end - whole_end);
  if (::fallocate(mapping.file.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  static_cast<off_t>(whole_begin), static_cast<off_t>(whole_end - whole_begin)) < 0)
    return from_errno("Cannot give guest memory back", errno);
  return {};
}

}  // namespace hf::engine
