// Goal: a record that was written is read back the same, and damage is refused, never guessed at.
#include "core/record/records.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

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

// Each names the field and the word; none reads as the first entry of its table.
template <class Record>
void expect_unknown_word(const std::string& text, const std::string& field) {
  const auto read = decode<Record>(text);
  ASSERT_FALSE(read.ok()) << text;
  EXPECT_EQ(read.code(), Code::corrupt);
  EXPECT_NE(read.error().what.find("\"" + field + "\" holds \"dancing\""), std::string::npos) << read.error().what;
}

TEST(Records, owner_with_an_unknown_phase_is_corrupt) {
  expect_unknown_word<OwnerRecord>(
      R"({"format":1,"phase":"dancing","host":"a","epoch":1,"session":"","guarded":true})", "phase");
}

TEST(Records, vm_with_an_unknown_wish_is_corrupt) {
  expect_unknown_word<VmRecord>(R"({"format":1,"desired":"dancing"})", "desired");
}

TEST(Records, status_with_an_unknown_state_is_corrupt) {
  expect_unknown_word<VmStatus>(R"({"format":1,"state":"dancing"})", "state");
}

TEST(Records, task_of_an_unknown_kind_or_state_is_corrupt) {
  expect_unknown_word<TaskRecord>(R"({"format":1,"kind":"dancing"})", "kind");
  expect_unknown_word<TaskRecord>(R"({"format":1,"kind":"vm.stop","state":"dancing"})", "state");
}

TEST(Records, an_enum_that_is_not_a_word_is_corrupt) {
  EXPECT_EQ(decode<VmStatus>(R"({"format":1,"state":3})").code(), Code::corrupt);
  EXPECT_EQ(decode<VmRecord>(R"({"format":1,"desired":null})").code(), Code::corrupt);
}

template <class Record, class Enum>
void expect_words_survive(Enum Record::*field, Enum last) {
  for (int i = 0; i <= static_cast<int>(last); ++i) {
    Record record;
    if constexpr (requires { record.spec; }) record.spec.name = "web";
    record.*field = static_cast<Enum>(i);
    const auto read = decode<Record>(encode(record));
    ASSERT_TRUE(read.ok()) << read.error().what;
    EXPECT_EQ((*read).*field, static_cast<Enum>(i));
  }
}

TEST(Records, every_word_is_read_back_as_it_was_written) {
  expect_words_survive(&VmRecord::desired, Desired::running);
  expect_words_survive(&VmStatus::state, VmState::failed);
  expect_words_survive(&TaskRecord::kind, TaskKind::vm_resize);
  expect_words_survive(&TaskRecord::state, TaskState::failed);
  expect_words_survive(&OwnerRecord::phase, OwnerRecord::Phase::claimed);
}

TEST(Records, what_cannot_be_read_is_named_with_its_key) {
  const auto read = decode_at("tasks/t-1", R"({"format":1,"kind":"vm.fly"})");
  ASSERT_FALSE(read.ok());
  EXPECT_NE(read.error().what.find("tasks/t-1"), std::string::npos) << read.error().what;
  EXPECT_NE(read.error().what.find("vm.fly"), std::string::npos) << read.error().what;
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
  motion.limits = {Encryption::off, 900, 15, Engine::qemu};
  motion.endpoint = "10.77.1.2:49152";
  motion.token = "secret";
  motion.session_to = SessionId("s-b");
  motion.generation_to = 17;
  motion.disks = {"fast", "raw", "", "task-1"};
  motion.room_bytes = 4096;
  return motion;
}

constexpr const char* kMotionText =
    R"({"disks":{"datastore":"fast","disk":"","format":"raw","tag":"task-1"},)"
    R"("endpoint":"10.77.1.2:49152","epoch":4,"format":1,"from":"a","generation_to":17,"id":"task-1",)"
    R"("limits":{"bandwidth_mbit":900,"encryption":"off","engine":"qemu","max_stop_ms":15},"phase":"ready",)"
    R"("room_bytes":4096,"session_to":"s-b","to":"b","token":"secret","vm":"vm-1"})";

TEST(Records, motion_has_these_bytes_and_is_read_back) {
  EXPECT_EQ(encode(a_motion()), kMotionText);
  EXPECT_EQ(*decode<MotionRecord>(kMotionText), a_motion());
  EXPECT_EQ(std::get<MotionRecord>(*decode_at("motions/vm-1", kMotionText)), a_motion());
}

TEST(Records, motion_that_does_not_name_its_engine_is_read_and_one_of_an_unknown_engine_is_not) {
  std::string text = kMotionText;
  text.erase(text.find(R"("engine":"qemu",)"), std::string_view(R"("engine":"qemu",)").size());
  EXPECT_EQ(decode<MotionRecord>(text)->limits.engine, Engine::automatic);
  text.insert(text.find(R"("max_stop_ms")"), R"("engine":"steam",)");
  EXPECT_EQ(decode<MotionRecord>(text).code(), Code::corrupt);
}

TEST(Records, motion_of_a_version_that_knew_no_disks_is_read) {
  auto object = nlohmann::json::parse(kMotionText);
  object.erase("disks");
  object.erase("room_bytes");
  MotionRecord expected = a_motion();
  expected.disks = {};
  expected.room_bytes = 0;
  EXPECT_EQ(*decode<MotionRecord>(object.dump()), expected);
}

TEST(Records, motion_with_an_unknown_phase_or_without_a_field_is_corrupt) {
  const auto replaced = [](std::string text, const std::string& what, const std::string& by) {
    return text.replace(text.find(what), what.size(), by);
  };
  EXPECT_EQ(decode<MotionRecord>(replaced(kMotionText, "\"ready\"", "\"dancing\"")).code(), Code::corrupt);
  EXPECT_EQ(decode<MotionRecord>(replaced(kMotionText, "\"session_to\"", "\"session\"")).code(), Code::corrupt);
}

TEST(Records, relocation_has_these_bytes_and_is_corrupt_without_a_field_or_with_an_unknown_phase) {
  RelocationRecord relocation;
  relocation.id = TaskId("t-1");
  relocation.vm = VmId("vm-1");
  relocation.host = HostId("a");
  relocation.live = true;
  relocation.epoch = Epoch{4};
  relocation.phase = RelocationRecord::Phase::committed;
  relocation.what = {"fast", "raw", "", "t-1"};
  relocation.bandwidth_mbit = 900;
  relocation.old_files = {{"slow", "root.qcow2"}};
  relocation.new_files = {{"fast", "root.t-1.raw"}};
  relocation.old_home = "slow";
  relocation.new_home = "fast";
  relocation.cleaner = HostId("b");
  const std::string text =
      R"({"bandwidth_mbit":900,"cleaner":"b","epoch":4,"format":1,"host":"a","id":"t-1","live":true,"new_files":)"
      R"([{"datastore":"fast","name":"root.t-1.raw"}],"new_home":"fast","old_files":)"
      R"([{"datastore":"slow","name":"root.qcow2"}],"old_home":"slow","phase":"committed","vm":"vm-1",)"
      R"("what":{"datastore":"fast","disk":"","format":"raw","tag":"t-1"}})";
  EXPECT_EQ(encode(relocation), text);
  EXPECT_EQ(std::get<RelocationRecord>(*decode_at("relocations/vm-1", text)), relocation);
  const auto replaced = [&](const std::string& what, const std::string& by) {
    return std::string(text).replace(text.find(what), what.size(), by);
  };
  EXPECT_EQ(decode<RelocationRecord>(replaced("\"committed\"", "\"flying\"")).code(), Code::corrupt);
  EXPECT_EQ(decode<RelocationRecord>(replaced("\"live\"", "\"alive\"")).code(), Code::corrupt);
}

TEST(Records, maintenance_is_read_back_and_an_unknown_state_is_corrupt) {
  MaintenanceRecord record;
  record.host = HostId("a");
  record.state = MaintenanceRecord::State::in;
  record.message = "It waits.";
  record.requested_by = "admin";
  record.since = 5;
  const std::string text =
      R"({"format":1,"host":"a","message":"It waits.","requested_by":"admin","since":5,"state":"in"})";
  EXPECT_EQ(encode(record), text);
  EXPECT_EQ(std::get<MaintenanceRecord>(*decode_at("maintenance/a", text)), record);
  EXPECT_EQ(decode<MaintenanceRecord>(R"({"format":1,"host":"a","state":"out"})").code(), Code::corrupt);
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

TEST(Records, members_of_a_later_version_are_kept_when_the_record_is_written_again) {
  const std::string text = R"({"epoch":1,"format":1,"guarded":true,"host":"a","later":{"x":[1]},"phase":"claimed",)"
                           R"("session":"s"})";
  auto owner = *decode<OwnerRecord>(text);
  owner.epoch = Epoch{2};
  const auto again = *decode<OwnerRecord>(encode(owner));
  EXPECT_EQ(again.later, R"({"later":{"x":[1]}})");
  EXPECT_EQ(again.epoch, Epoch{2});
  auto cluster = *decode<ClusterRecord>(R"({"format":1,"id":"c","drs":"auto","ft":{"limit":4}})");
  EXPECT_EQ(cluster.later, R"({"drs":"auto","ft":{"limit":4}})");
  cluster.evc = "Haswell-v4";
  EXPECT_EQ(*decode<ClusterRecord>(encode(cluster)), cluster);
  EXPECT_EQ(decode<TaskRecord>(encode(TaskRecord{}))->later, "");
  EXPECT_EQ(decode<VmRecord>(R"({"format":1,"id":"vm-1","priority":3})")->later, R"({"priority":3})");
}

TEST(Records, records_of_the_version_before_have_no_level_and_no_cpu) {
  EXPECT_EQ(decode<HostRecord>(R"({"format":1,"host":"a"})")->level, 1);
  EXPECT_FALSE(decode<HostRecord>(R"({"format":1,"host":"a"})")->cpu.known());
  EXPECT_EQ(decode<ClusterRecord>(R"({"format":1,"id":"c"})")->level, 1);
}

}  // namespace
}  // namespace hf::record
