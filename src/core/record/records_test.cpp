// Goal: a record that was written is read back the same, and damage is refused, never guessed at.
#include "core/record/records.hpp"

#include <gtest/gtest.h>

namespace hf::record {
namespace {

TEST(Records, owner_survives_a_round_trip) {
  OwnerRecord owner;
  owner.phase = OwnerRecord::Phase::claimed;
  owner.host = HostId("host1");
  owner.epoch = Epoch{7};
  owner.session = SessionId("s-1");
  owner.reason = "start";
  EXPECT_EQ(*decode<OwnerRecord>(encode(owner)), owner);
}

TEST(Records, owner_with_an_unknown_phase_is_corrupt) {
  EXPECT_EQ(
      decode<OwnerRecord>(R"({"format":1,"phase":"x","host":"a","epoch":1,"session":"","guarded":true})")
          .code(),
      Code::corrupt);
}

TEST(Records, owner_that_lacks_its_host_is_corrupt) {
  EXPECT_EQ(
      decode<OwnerRecord>(R"({"format":1,"phase":"claimed","epoch":1,"session":"","guarded":true})").code(),
      Code::corrupt);
}

TEST(Records, what_is_not_json_is_corrupt) {
  EXPECT_EQ(decode<HostRecord>("{\"format\":1").code(), Code::corrupt);
  EXPECT_EQ(decode<HostRecord>("[]").code(), Code::corrupt);
  EXPECT_EQ(decode<HostRecord>("{}").code(), Code::corrupt);
}

TEST(Records, unknown_fields_of_a_later_version_are_ignored) {
  EXPECT_EQ(decode<NetworkRecord>(R"({"format":2,"name":"vm","bridge":"br0","vlan":3,"new":1})")->vlan, 3);
}

}  // namespace
}  // namespace hf::record
