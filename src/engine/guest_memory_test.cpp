// Goal: guest memory is one run of numbered pages over all blocks; holes stay holes. Method: memfds, also of huge pages
// where the machine has some.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "engine/guest_memory.hpp"

namespace hf::engine {
namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

GuestMemory::Part part(std::uint64_t bytes, std::uint64_t file_bytes) {
  process::UniqueFd file(::memfd_create("test", MFD_CLOEXEC));
  EXPECT_EQ(::ftruncate(file.get(), static_cast<off_t>(file_bytes)), 0);
  return {{bytes, kPageBytes, 0}, std::move(file)};
}

GuestMemory two_blocks() {
  std::vector<GuestMemory::Part> parts;
  parts.push_back(part(kMiB, kMiB));
  parts.push_back(part(kMiB, kMiB));
  auto memory = GuestMemory::map(std::move(parts));
  EXPECT_TRUE(memory.ok());
  return std::move(*memory);
}

bool is_zero(const GuestMemory& memory, PageNumber page) {
  return std::all_of(memory.page(page), memory.page(page) + kPageBytes,
                     [](std::byte b) { return b == std::byte{}; });
}

TEST(GuestMemory, pages_are_numbered_over_all_blocks) {
  const GuestMemory memory = two_blocks();
  EXPECT_EQ(memory.page_count(), 512U);
  EXPECT_EQ(memory.page(255) - memory.page(0), 255 * 4096);
  EXPECT_EQ(memory.page(511) - memory.page(256), 255 * 4096);
}

TEST(GuestMemory, only_pages_that_were_touched_are_present) {
  const GuestMemory memory = two_blocks();
  EXPECT_EQ(memory.present().value(), PageSet{});
  for (const PageNumber page : {0U, 254U, 255U, 256U, 511U}) *memory.page(page) = std::byte{1};
  const PageSet expected = {{0, 1}, {254, 3}, {511, 1}};
  EXPECT_EQ(memory.present().value(), expected);
}

TEST(GuestMemory, discarded_pages_read_as_zeros_and_their_neighbours_stay) {
  GuestMemory memory = two_blocks();
  for (PageNumber page = 0; page < memory.page_count(); ++page) std::memset(memory.page(page), 7, kPageBytes);
  ASSERT_TRUE(memory.discard({250, 10}).ok());
  const PageSet expected = {{0, 250}, {260, 252}};
  EXPECT_EQ(memory.present().value(), expected);
  for (PageNumber page = 250; page < 260; ++page) EXPECT_TRUE(is_zero(memory, page));
  EXPECT_FALSE(is_zero(memory, 249));
  EXPECT_FALSE(is_zero(memory, 260));
}

TEST(GuestMemory, huge_pages_are_discarded_to_the_byte) {
  process::UniqueFd file(::memfd_create("test", MFD_CLOEXEC | MFD_HUGETLB));
  if (!file || ::ftruncate(file.get(), 4 * kMiB) != 0)
    GTEST_SKIP() << "this kernel has no huge pages of 2 MiB";
  std::vector<GuestMemory::Part> parts;
  parts.push_back({{4 * kMiB, 2 * kMiB, 0}, std::move(file)});
  auto memory = GuestMemory::map(std::move(parts));
  if (!memory) GTEST_SKIP() << "no huge pages are set aside (vm.nr_hugepages): " << memory.error().what;
  for (PageNumber page = 0; page < 1024; ++page) std::memset(memory->page(page), 7, kPageBytes);
  ASSERT_TRUE(memory->discard({1, 1022}).ok());
  for (PageNumber page = 0; page < 1024; ++page)
    EXPECT_EQ(is_zero(*memory, page), page != 0 && page != 1023) << page;
}

TEST(GuestMemory, a_file_shorter_than_its_memory_is_refused) {
  std::vector<GuestMemory::Part> parts;
  parts.push_back(part(kMiB, kMiB));
  parts.push_back(part(kMiB, kMiB - 4096));
  EXPECT_EQ(GuestMemory::map(std::move(parts)).code(), Code::failed);
}

TEST(GuestMemory, what_is_not_made_of_pages_is_refused) {
  for (const RamBlock& block : {RamBlock{kMiB + 1, 4096, 0}, RamBlock{0, 4096, 0}, RamBlock{kMiB, 0, 0},
                                RamBlock{kMiB, 3 * 4096, 0}, RamBlock{kMiB, 2 * kMiB, 0}}) {
    std::vector<GuestMemory::Part> parts;
    parts.push_back(part(kMiB, 2 * kMiB));
    parts[0].block = block;
    EXPECT_EQ(GuestMemory::map(std::move(parts)).code(), Code::failed)
        << block.bytes << " " << block.page_bytes;
  }
}

}  // namespace
}  // namespace hf::engine
