// Goal: a stale, doubled, lost or torn write of a guest shows, and a clean disk has no problems. Method: made disks.
#include "lab/ledger_check.hpp"

#include <gtest/gtest.h>

#include <cstring>

#include "lab/guest/ledger_format.h"

namespace hf::lab {
namespace {

// A disk as the guest writes it, with the means to do it wrong.
class Disk {
 public:
  void boot(std::uint64_t incarnation) {
    head_.magic = LEDGER_HEAD_MAGIC;
    head_.incarnation = incarnation;
    head_.nonce = incarnation * 77;
    head_.first_seq = last_ + 1;
    head_.slots = 16;
    write_head();
  }
  void append(int count) {
    for (int i = 0; i < count; ++i) write(head_.incarnation, head_.nonce, head_.first_seq, ++last_);
  }
  void write(std::uint64_t incarnation, std::uint64_t nonce, std::uint64_t first_seq, std::uint64_t seq) {
    ledger_record record{.magic = LEDGER_RECORD_MAGIC,
                         .incarnation = incarnation,
                         .nonce = nonce,
                         .first_seq = first_seq,
                         .seq = seq,
                         .checksum = 0};
    record.checksum = ledger_record_sum(&record);
    std::memcpy(block(1 + seq % 16), &record, sizeof(record));
  }
  void count_violation() {
    ++head_.violations;
    write_head();
  }
  char* block(std::uint64_t number) { return bytes_.data() + number * LEDGER_BLOCK; }
  std::uint64_t last() const { return last_; }
  LedgerReport report() const {
    auto checked = check_ledger_blocks(bytes_);
    EXPECT_TRUE(checked.ok());
    return checked ? *checked : LedgerReport{};
  }

 private:
  void write_head() {
    head_.checksum = ledger_head_sum(&head_);
    std::memcpy(block(0), &head_, sizeof(head_));
  }
  ledger_head head_{};
  std::uint64_t last_ = 0;
  std::string bytes_ = std::string(17 * LEDGER_BLOCK, '\0');
};

TEST(Ledger, clean_boots_have_no_problems) {
  Disk disk;
  for (std::uint64_t incarnation = 1; incarnation <= 3; ++incarnation) {
    disk.boot(incarnation);
    disk.append(10);
  }
  EXPECT_EQ(disk.report().problems, std::vector<std::string>{});
  EXPECT_EQ(disk.report().incarnation, 3u);
  EXPECT_EQ(disk.report().last_sequence, 30u);
}

TEST(Ledger, a_stale_write_shows) {
  Disk disk;
  disk.boot(1);
  disk.append(5);
  const auto next = disk.last() + 1;
  disk.boot(2);
  disk.append(5);
  disk.write(1, 77, 1, next);  // where incarnation 1 would have gone on
  EXPECT_FALSE(disk.report().problems.empty());
}

TEST(Ledger, a_stale_write_before_the_first_new_record_shows) {
  Disk disk;
  disk.boot(1);
  disk.append(5);
  disk.boot(2);
  disk.write(1, 77, 1, 6);
  EXPECT_FALSE(disk.report().problems.empty());
}

TEST(Ledger, two_guests_of_one_incarnation_show) {
  Disk disk;
  disk.boot(1);
  disk.append(3);
  disk.write(1, 5, 1, 4);
  EXPECT_FALSE(disk.report().problems.empty());
}

TEST(Ledger, a_lost_write_shows_and_a_torn_last_one_does_not) {
  Disk disk;
  disk.boot(1);
  disk.append(20);
  std::memset(disk.block(1 + 21 % 16), 'x', 100);
  EXPECT_TRUE(disk.report().problems.empty()) << "the write after the last may be torn";
  std::memset(disk.block(1 + 18 % 16), 'x', 100);
  EXPECT_FALSE(disk.report().problems.empty());
}

TEST(Ledger, a_head_written_by_an_older_incarnation_shows) {
  Disk disk;
  disk.boot(2);
  disk.append(3);
  disk.boot(1);
  EXPECT_FALSE(disk.report().problems.empty());
}

TEST(Ledger, what_the_guest_counted_is_reported) {
  Disk disk;
  disk.boot(1);
  disk.append(3);
  disk.count_violation();
  EXPECT_EQ(disk.report().problems.size(), 1u);
}

TEST(Ledger, a_disk_without_one_is_corrupt) {
  EXPECT_EQ(check_ledger_blocks(std::string(8192, '\0')).code(), Code::corrupt);
  EXPECT_EQ(check_ledger_blocks("").code(), Code::corrupt);
}

}  // namespace
}  // namespace hf::lab
