// Goal: the formats on a datastore are fixed to the byte, survive a round trip, and refuse every damage.
#include "core/ha/slot.hpp"

#include <gtest/gtest.h>

#include "base/rng.hpp"
#include "core/ha/datastore_files.hpp"

namespace hf::ha {
namespace {

Slot sample() {
  Slot slot;
  slot.host = HostId("h1");
  slot.session = SessionId("s");
  slot.incarnation = "i";
  slot.sequence = 0x0102;
  slot.wall = 3;
  slot.stopped_all = true;
  slot.running = {{VmId("vm-1"), Epoch{7}}};
  slot.running_total = 1;
  return slot;
}

std::string hex(std::string_view bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string out;
  for (char c : bytes) {
    out += kDigits[static_cast<unsigned char>(c) >> 4];
    out += kDigits[static_cast<unsigned char>(c) & 15];
  }
  return out;
}

TEST(Slot, golden_bytes) {
  const std::string bytes = encode_slot(sample());
  ASSERT_EQ(bytes.size(), kSlotBytes);
  EXPECT_EQ(hex(bytes.substr(0, 70)),
            "4846534c4f540d0a"  // magic
            "b62c6586"          // crc32
            "01000000"
            "46000000"          // version, length 70
            "01000000"          // flags: stopped_all
            "0201000000000000"  // sequence
            "0300000000000000"  // wall
            "02006831"
            "010073"
            "010069"  // host, session, incarnation
            "01000000"
            "0100"  // running in all, listed
            "0400766d2d31"
            "0700000000000000");
}

TEST(Slot, survives_a_round_trip) { EXPECT_EQ(*decode_slot(encode_slot(sample())), sample()); }

TEST(Slot, vms_that_do_not_fit_are_counted) {
  Slot slot = sample();
  for (int i = 0; i < 1000; ++i) slot.running.push_back({VmId("vm-" + std::to_string(i)), Epoch{1}});
  const auto read = decode_slot(encode_slot(slot));
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->running_total, 1001U);
  EXPECT_GT(read->running.size(), 200U);
  EXPECT_LT(read->running.size(), 1001U);
}

TEST(Slot, every_damaged_byte_is_refused_and_seen_as_a_change) {
  const std::string good = encode_slot(sample());
  for (std::size_t at = 0; at < 70; ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 0x10);
    EXPECT_FALSE(decode_slot(bad).ok()) << at;
    EXPECT_NE(slot_fingerprint(bad), slot_fingerprint(good));
  }
}

TEST(Slot, random_and_short_bytes_are_corrupt) {
  Rng rng(7);
  for (int i = 0; i < 2000; ++i) {
    std::string bytes = encode_slot(sample()).substr(0, 20);
    while (bytes.size() < kSlotBytes) bytes += static_cast<char>(rng.next());
    EXPECT_EQ(decode_slot(bytes).code(), Code::corrupt);
    EXPECT_EQ(decode_slot(std::string_view(bytes).substr(0, rng.below(kSlotBytes))).code(), Code::corrupt);
  }
}

TEST(Slot, each_renewal_changes_the_fingerprint) {
  Slot slot = sample();
  const std::uint64_t before = slot_fingerprint(encode_slot(slot));
  ++slot.sequence;
  EXPECT_NE(slot_fingerprint(encode_slot(slot)), before);
}

TEST(DatastoreMarker, golden_bytes_and_round_trip) {
  const DatastoreMarker marker{DatastoreId("ds-1"), "nfs1", 5};
  EXPECT_EQ(encode_marker(marker), "{\"created\":5,\"format\":1,\"id\":\"ds-1\",\"name\":\"nfs1\"}\n");
  EXPECT_EQ(*decode_marker(encode_marker(marker)), marker);
  EXPECT_EQ(decode_marker("{\"format\":1}").code(), Code::corrupt);
  EXPECT_EQ(decode_marker("").code(), Code::corrupt);
  EXPECT_EQ(decode_marker("[]").code(), Code::corrupt);
}

OwnerFile owner(std::uint64_t epoch, const std::string& host) {
  OwnerFile file{VmId("vm-1"), HostId(host), SessionId("s-1"), Epoch{epoch}, {}};
  file.spec.name = "web";
  return file;
}

TEST(OwnerFile, golden_bytes_and_round_trip) {
  const std::string text = encode_owner_file(owner(7, "h1"));
  EXPECT_TRUE(text.starts_with("{\"epoch\":7,\"format\":1,\"host\":\"h1\",\"session\":\"s-1\",\"spec\":{"))
      << text;
  EXPECT_NE(text.find(",\"vm\":\"vm-1\"}\ncrc32 "), std::string::npos) << text;
  EXPECT_EQ(*decode_owner_file(text), owner(7, "h1"));
}

TEST(OwnerFile, every_torn_or_damaged_file_is_corrupt) {
  const std::string good = encode_owner_file(owner(7, "h1"));
  for (std::size_t length = 0; length < good.size(); ++length) {
    EXPECT_EQ(decode_owner_file(good.substr(0, length)).code(), Code::corrupt) << length;
    std::string bad = good;
    bad[length] = static_cast<char>(bad[length] ^ 1);
    EXPECT_EQ(decode_owner_file(bad).code(), Code::corrupt) << length;
  }
}

TEST(OwnerFile, only_a_larger_epoch_or_the_same_host_replaces) {
  EXPECT_TRUE(may_replace(owner(7, "h1"), owner(8, "h2")).ok());
  EXPECT_TRUE(may_replace(owner(7, "h1"), owner(7, "h1")).ok());
  EXPECT_EQ(may_replace(owner(7, "h1"), owner(7, "h2")).code(), Code::conflict);
  EXPECT_EQ(may_replace(owner(8, "h1"), owner(7, "h1")).code(), Code::conflict);
}

}  // namespace
}  // namespace hf::ha
