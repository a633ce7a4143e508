// Goal: only the cluster's own members are touched, only the leader gives votes, and what is remembered is found again.
// Method: the pure part on lists of members; the file in a folder. A whole etcd grows in sys/etcd's tests.
#include "daemon/member_keeper.hpp"

#include <gtest/gtest.h>

#include "base/testing/temp_folder.hpp"
#include "sys/process/small_file.hpp"

namespace hf::daemon {
namespace {

using Urls = std::vector<std::string>;

etcd::Member member(std::uint64_t id, const std::string& name, bool learner = false) {
  const std::string address = "10.77.0." + std::to_string(id);
  return {id, name, {"https://" + address + ":2380"}, {"https://" + address + ":2379"}, learner};
}

TEST(MemberKeeper, members_that_others_run_are_left_alone) {
  const auto work = work_on({member(1, "x"), member(2, "y", true)}, {"https://10.0.0.9:2379"}, true);
  EXPECT_TRUE(work.to_promote.empty());
  EXPECT_TRUE(work.to_remember.empty());
}

TEST(MemberKeeper, the_leader_gives_each_learner_that_has_started_its_vote) {
  const std::vector<etcd::Member> members = {member(1, "host1"), member(2, "host2", true), member(3, "", true)};
  const auto work = work_on(members, {"10.77.0.1:2379"}, true);
  ASSERT_EQ(work.to_promote.size(), 1U);
  EXPECT_EQ(work.to_promote.front().id, 2U);
}

TEST(MemberKeeper, a_host_that_does_not_lead_gives_no_votes) {
  EXPECT_TRUE(work_on({member(1, "host1"), member(2, "host2", true)}, {"10.77.0.1:2379"}, false).to_promote.empty());
}

TEST(MemberKeeper, a_voting_member_that_is_not_used_yet_is_remembered_with_all_others) {
  const auto work = work_on({member(1, "host1"), member(2, "host2")}, {"10.77.0.1:2379"}, false);
  EXPECT_EQ(work.to_remember, (Urls{"https://10.77.0.1:2379", "https://10.77.0.2:2379"}));
}

TEST(MemberKeeper, nothing_is_remembered_while_all_voting_members_are_used) {
  const std::vector<etcd::Member> members = {member(1, "host1"), member(2, "host2"), member(3, "host3", true)};
  EXPECT_TRUE(work_on(members, {"http://10.77.0.1:2379", "10.77.0.2:2379"}, true).to_remember.empty());
}

TEST(MemberKeeper, what_was_remembered_comes_after_the_configured_endpoints_and_none_twice) {
  const test::TempFolder folder;
  config::HostConfig config;
  config.state_dir = folder.path();
  config.store.kind = config::StoreKind::etcd;
  config.store.endpoints = {"10.77.0.2:2379"};
  EXPECT_EQ(with_known_endpoints(config).store.endpoints, Urls{"10.77.0.2:2379"}) << "no file yet";
  const std::string lines = "https://10.77.0.1:2379\nhttps://10.77.0.2:2379\n";
  ASSERT_TRUE(process::replace_file(endpoints_file(config), lines, 0644).ok());
  const Urls both = {"10.77.0.2:2379", "https://10.77.0.1:2379"};
  EXPECT_EQ(with_known_endpoints(config).store.endpoints, both);
  config.store.kind = config::StoreKind::sqlite;
  EXPECT_EQ(with_known_endpoints(config).store.endpoints, Urls{"10.77.0.2:2379"}) << "a single host has no members";
}

}  // namespace
}  // namespace hf::daemon
