// Goal: a copied marker is found, a slow or dead host is not taken for one. Method: slots are read every half second
// for as long as a case needs, without any clock but the test's.
#include "core/ha/share_check.hpp"

#include <gtest/gtest.h>

namespace hf::ha {
namespace {

class ShareCheckTest : public ::testing::Test {
 protected:
  ShareCheckTest() {
    for (const auto& name : {"host1", "host2", "host3"}) add(HostId(name));
    view_.datastores["ds-1"] = {{DatastoreId("ds-1"), "shared", true, {{"*", "/srv"}}}, 1};
  }
  void add(const HostId& host) {
    record::HostRecord record;
    record.host = host;
    record.datastores = {{"ds-1", "/srv"}};
    record.slot_datastores = record.slots_renewed = {"ds-1"};
    view_.hosts[host] = {record, 1};
    view_.sessions[host] = {{SessionId("s")}, 1};
  }
  // `moves`: whose slots change with every read. Those of `gone` are not there at all.
  void pass(Duration time, const std::set<std::string>& moves, const std::set<std::string>& gone = {}) {
    for (const Instant end = now_ + time; now_ < end; now_ += 500ms) {
      ++content_;
      for (const auto& name : {"host2", "host3"}) {
        const bool absent = gone.count(name) != 0;
        const std::uint64_t content = moves.count(name) != 0 ? content_ : 7;
        check_.on({HostId(name), "ds-1", !absent, content, now_, now_, absent});
      }
      check_.look_at(view_, HostId("host1"), now_);
    }
  }
  bool usable() const {
    const auto found = check_.verdicts().find("ds-1");
    return found == check_.verdicts().end() || found->second.usable;
  }

  View view_;
  Instant now_{100s};
  std::uint64_t content_ = 1000;
  ShareCheck check_{Timing{}};
};

TEST_F(ShareCheckTest, slots_that_move_are_shared) {
  pass(60s, {"host2", "host3"});
  EXPECT_TRUE(check_.verdicts().empty());
}

TEST_F(ShareCheckTest, slots_that_stand_still_although_renewed_are_on_another_storage) {
  pass(14s, {});
  EXPECT_TRUE(check_.verdicts().empty());
  pass(6s, {});
  ASSERT_EQ(check_.verdicts().count("ds-1"), 1u);
  EXPECT_FALSE(usable());
  EXPECT_NE(check_.verdicts().at("ds-1").text.find("Datastore shared is not one storage: host2, host3"),
            std::string::npos);
}

TEST_F(ShareCheckTest, a_copy_without_the_others_slots_is_found) {
  pass(20s, {}, {"host2", "host3"});
  EXPECT_FALSE(usable());
}

TEST_F(ShareCheckTest, the_smaller_side_is_wrong) {
  pass(20s, {"host2"});
  ASSERT_EQ(check_.verdicts().count("ds-1"), 1u);
  EXPECT_EQ(check_.verdicts().at("ds-1").elsewhere, std::vector<HostId>{HostId("host3")});
  EXPECT_TRUE(usable());
}

TEST_F(ShareCheckTest, a_host_without_session_or_guard_promises_nothing) {
  view_.sessions.erase(HostId("host2"));
  view_.hosts[HostId("host3")].record.slots_renewed.clear();
  pass(60s, {});
  EXPECT_TRUE(check_.verdicts().empty());
}

TEST_F(ShareCheckTest, unreadable_slots_say_nothing) {
  for (int i = 0; i < 200; ++i, now_ += 500ms) {
    check_.on({HostId("host2"), "ds-1", false, 0, now_, now_, false});
    check_.look_at(view_, HostId("host1"), now_);
  }
  EXPECT_TRUE(check_.verdicts().empty());
}

// Else the lost session, and the slot that never moves here, would together pass for a proof.
TEST_F(ShareCheckTest, the_verdict_outlasts_the_session_and_ends_when_the_slot_moves) {
  pass(20s, {});
  view_.sessions.clear();
  pass(60s, {});
  EXPECT_FALSE(usable());
  pass(2s, {"host2", "host3"});
  EXPECT_TRUE(check_.verdicts().empty());
}

}  // namespace
}  // namespace hf::ha
