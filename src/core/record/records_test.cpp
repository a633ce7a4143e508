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

MotionRecord a_motion() {
  MotionRecord motion;
  motion.id = TaskId("task-1");
  motion.vm = VmId("vm-1");
  motion.from = HostId("a");
  motion.to = HostId("b");
  motion.epoch = Epoch{4};
  motion.phase = MotionRecord::Phase::ready;
  motion.limits = {Encryption::off, 900, 15};
  motion.endpoint = "10.77.1.2:49152";
  motion.token = "secret";
  motion.session_to = SessionId("s-b");
  motion.generation_to = 17;
  return motion;
}

constexpr const char* kMotionText =
    R"({"endpoint":"10.77.1.2:49152","epoch":4,"format":1,"from":"a","generation_to":17,"id":"task-1",)"
    R"("limits":{"bandwidth_mbit":900,"encryption":"off","max_stop_ms":15},"phase":"ready",)"
    R"("session_to":"s-b","to":"b","token":"secret","vm":"vm-1"})";

TEST(Records, motion_has_these_bytes_and_is_read_back) {
  EXPECT_EQ(encode(a_motion()), kMotionText);
  EXPECT_EQ(*decode<MotionRecord>(kMotionText), a_motion());
  EXPECT_EQ(std::get<MotionRecord>(*decode_at("motions/vm-1", kMotionText)), a_motion());
}

TEST(Records, motion_with_an_unknown_phase_or_without_a_field_is_corrupt) {
  const auto replaced = [](std::string text, const std::string& what, const std::string& by) {
    return text.replace(text.find(what), what.size(), by);
  };
  EXPECT_EQ(decode<MotionRecord>(replaced(kMotionText, "\"ready\"", "\"dancing\"")).code(), Code::corrupt);
  EXPECT_EQ(decode<MotionRecord>(replaced(kMotionText, "\"session_to\"", "\"session\"")).code(), Code::corrupt);
}

TEST(Records, owner_names_the_motion_that_brought_it_and_an_older_record_names_none) {
  OwnerRecord owner;
  owner.phase = OwnerRecord::Phase::claimed;
  owner.motion = TaskId("task-1");
  EXPECT_EQ(decode<OwnerRecord>(encode(owner))->motion, TaskId("task-1"));
  const auto old =
      decode<OwnerRecord>(R"({"format":1,"phase":"claimed","host":"a","epoch":1,"session":"","guarded":true})");
  EXPECT_TRUE(old->motion.empty());
}

TEST(Records, task_of_a_migration_keeps_its_parameters) {
  TaskRecord task;
  task.kind = TaskKind::vm_migrate;
  task.to = HostId("b");
  task.limits = {Encryption::opportunistic, 100, 20};
  EXPECT_EQ(*decode<TaskRecord>(encode(task)), task);
}

TEST(Records, unknown_fields_of_a_later_version_are_ignored) {
  EXPECT_EQ(decode<NetworkRecord>(R"({"format":2,"name":"vm","bridge":"br0","vlan":3,"new":1})")->vlan, 3);
}

}  // namespace
}  // namespace hf::record
