// Goal: the store of a cluster keeps the contract of every store, also when members stall, end or lose replies.
// Method: the contract's suite and single cases against real etcd processes behind relays.
#include "sys/etcd/etcd_store.hpp"

#include "port/copy_store.hpp"
#include "port/store_contract.hpp"
#include "sys/etcd/test_cluster.hpp"
#include "sys/etcd/test_relay.hpp"
#include "sys/process/clock.hpp"
#include "sys/sqlite/sqlite_store.hpp"

namespace hf::etcd {
namespace {

using contract::put;
using contract::Recorder;
using contract::StoreContract;
using contract::StoreMaker;
using contract::StoreWorld;
using test::Cluster;
using test::eventually;
using test::Relay;

class EtcdWorld final : public StoreWorld {
 public:
  EtcdWorld() : first_(Cluster::ready(cluster_.options())), second_(Cluster::ready(cluster_.options())) {}
  Store& store() override { return *first_; }
  Store* second() override { return second_.get(); }
  Instant now() override { return sys::boot_now(); }
  void pass() override { std::this_thread::sleep_for(20ms); }
  bool restart() override {
    cluster_.members[0]->kill();
    cluster_.members[0]->start();
    first_ = Cluster::ready(cluster_.options());
    return first_ != nullptr;
  }
  bool up() const { return first_ != nullptr && second_ != nullptr; }

 private:
  Cluster cluster_{1};
  std::unique_ptr<EtcdStore> first_, second_;
};

std::unique_ptr<StoreWorld> make_world() {
  auto world = std::make_unique<EtcdWorld>();
  return world->up() ? std::move(world) : nullptr;
}
INSTANTIATE_TEST_SUITE_P(Etcd, StoreContract, ::testing::Values(StoreMaker{"etcd", make_world}));

TEST(EtcdStore, keys_of_another_prefix_are_not_seen) {
  Cluster cluster(1);
  auto options = cluster.options();
  auto store = Cluster::ready(options);
  ASSERT_NE(store, nullptr);
  options.prefix = "/holdfast/test2/";
  auto other = Cluster::ready(options);
  ASSERT_TRUE(store->commit(put("a", "1")).ok());
  EXPECT_EQ(other->get("a").code(), Code::not_found);
  EXPECT_TRUE(other->list("")->entries.empty());
  EXPECT_NE(cluster.control("get /holdfast/test/a").find("/holdfast/test/a"), std::string::npos);
}

TEST(EtcdStore, without_any_member_everything_is_unavailable) {
  EtcdOptions options;
  options.endpoints = {test::at_port(test::free_port()), test::at_port(test::free_port())};
  options.store.timeout = 500ms;
  auto store = EtcdStore::open(options);
  ASSERT_TRUE(store.ok());
  EXPECT_EQ((*store)->list("").code(), Code::unavailable);
  EXPECT_EQ((*store)->commit(put("a", "1")).code(), Code::unavailable);
  EXPECT_EQ((*store)->grant(2s).code(), Code::unavailable);
  EXPECT_EQ((*store)->keep_alive(LeaseId{7}).code(), Code::unavailable);
  EXPECT_EQ(EtcdStore::open(EtcdOptions{}).code(), Code::invalid);
}

// Goal: one member of three may die. Method: kill -9 of the one in use; every kind of call is made again.
TEST(EtcdStore, a_killed_member_is_survived) {
  Cluster cluster(3);
  auto store = Cluster::ready(cluster.options(20s));
  ASSERT_NE(store, nullptr);
  const auto lease = store->grant(60s);
  ASSERT_TRUE(lease.ok());
  ASSERT_TRUE(store->commit(put("a", "1", *lease)).ok());
  cluster.members[0]->kill();
  const auto committed = store->commit(put("b", "1"));
  ASSERT_TRUE(committed.ok()) << committed.error().what;
  EXPECT_TRUE(committed->done);
  EXPECT_EQ(store->list("")->entries.size(), 2u);
  EXPECT_TRUE(store->keep_alive(*lease).ok());
  EXPECT_TRUE(store->revoke(*lease).ok());
  EXPECT_TRUE(store->grant(60s).ok());
}

// Goal: a member that hangs costs time, not an error, and a watch goes on. Method: SIGSTOP of the one in use.
TEST(EtcdStore, a_hung_member_is_left_for_another_one) {
  Cluster cluster(3);
  auto store = Cluster::ready(cluster.options(20s));
  ASSERT_NE(store, nullptr);
  Recorder seen;
  auto watch = store->watch("", seen);
  ASSERT_TRUE(store->commit(put("a", "1")).ok());
  ASSERT_TRUE(seen.wait_for_state({{"a", "1"}}));
  cluster.members[0]->stop();
  const auto committed = store->commit(put("b", "1"));
  EXPECT_TRUE(committed.ok()) << committed.error().what;
  EXPECT_EQ(store->get("b")->value, "1");
  EXPECT_TRUE(seen.wait_for_state({{"a", "1"}, {"b", "1"}}));
  cluster.members[0]->go_on();
  EXPECT_TRUE(store->commit(put("c", "1")).ok());
  EXPECT_TRUE(seen.wait_for_state({{"a", "1"}, {"b", "1"}, {"c", "1"}}));
  watch->reset();
  EXPECT_FALSE(seen.out_of_order);
}

// Goal: without a majority nothing is said to be done. Method: SIGSTOP of two members of three.
TEST(EtcdStore, without_a_majority_nothing_succeeds_until_it_is_back) {
  Cluster cluster(3);
  auto store = Cluster::ready(cluster.options(2s));
  ASSERT_NE(store, nullptr);
  LeaseId lease;
  ASSERT_TRUE(eventually([&] {
    const auto granted = store->grant(60s);
    if (granted.ok()) lease = *granted;
    return granted.ok();
  }));
  Recorder seen;
  auto watch = store->watch("", seen);
  ASSERT_TRUE(seen.wait_for_state({}));
  cluster.members[0]->stop();
  cluster.members[1]->stop();
  const auto refused = [](Code code) { return code == Code::unavailable || code == Code::outcome_unknown; };
  const auto committed = store->commit(put("a", "1"));
  ASSERT_FALSE(committed.ok());
  EXPECT_TRUE(refused(committed.code())) << committed.error().what;
  EXPECT_EQ(store->list("").code(), Code::unavailable);
  const auto kept = store->keep_alive(lease);
  ASSERT_FALSE(kept.ok());
  EXPECT_TRUE(refused(kept.code())) << kept.error().what;
  EXPECT_TRUE(seen.wait([](const Recorder& r) { return r.lost; }));
  cluster.members[0]->go_on();
  cluster.members[1]->go_on();
  ASSERT_TRUE(eventually([&] { return store->list("").ok(); }));
  if (committed.code() == Code::unavailable) {
    EXPECT_EQ(store->get("a").code(), Code::not_found);
  }
  ASSERT_TRUE(eventually([&] { return store->commit(put("b", "1")).ok(); }));
  EXPECT_TRUE(seen.wait([](const Recorder& r) { return !r.lost && r.state.contains("b"); }));
}

// Goal: a lease is not prolonged by a leader that was deposed and does not know it. Method: the leader sleeps
// until its successor has ended the lease; then only the old one is asked.
TEST(EtcdStore, a_deposed_leader_does_not_prolong_an_ended_lease) {
  Cluster cluster(3);
  auto store = Cluster::ready(cluster.options(20s));
  ASSERT_NE(store, nullptr);
  test::Process* leader = nullptr;
  ASSERT_TRUE(eventually([&] { return (leader = cluster.leader()) != nullptr; }));
  auto only = cluster.options(20s);
  only.endpoints = {leader->config.client_address};
  auto through_leader = Cluster::ready(only);
  ASSERT_NE(through_leader, nullptr);
  const auto lease = store->grant(2s);
  ASSERT_TRUE(lease.ok());
  ASSERT_TRUE(store->commit(put("a", "1", *lease)).ok());
  leader->stop();
  ASSERT_TRUE(eventually([&] {
    const auto found = store->get("a");
    return !found.ok() && found.code() == Code::not_found;
  }));
  leader->go_on();
  const auto kept = through_leader->keep_alive(*lease);
  EXPECT_EQ(kept.code(), Code::not_found);
}

// Goal: a reply that is lost is no answer. Method: the relay cuts the connection once etcd has the request.
TEST(EtcdStore, a_lost_reply_is_an_unknown_outcome) {
  Cluster cluster(1);
  auto direct = Cluster::ready(cluster.options());
  ASSERT_NE(direct, nullptr);
  Relay relay(cluster.members[0]->config.client_address);
  auto options = cluster.options();
  options.endpoints = {relay.address()};
  auto store = Cluster::ready(options);
  ASSERT_NE(store, nullptr);

  relay.cut_at("done-but-not-told", Relay::Cut::after);
  EXPECT_EQ(store->commit(put("done-but-not-told", "1")).code(), Code::outcome_unknown);
  EXPECT_TRUE(eventually([&] { return direct->get("done-but-not-told").ok(); }));

  relay.cut_at("never-arrived", Relay::Cut::before);
  EXPECT_EQ(store->commit(put("never-arrived", "1")).code(), Code::outcome_unknown);
  EXPECT_EQ(store->get("never-arrived").code(), Code::not_found);
  EXPECT_EQ(direct->get("never-arrived").code(), Code::not_found);
}

// Goal: a watch that cannot catch up starts over. Method: its first connection is cut and its second one
// held, until the changes it missed are compacted away.
TEST(EtcdStore, compaction_during_a_broken_watch_resets_it) {
  Cluster cluster(1);
  auto direct = Cluster::ready(cluster.options());
  ASSERT_NE(direct, nullptr);
  Relay one(cluster.members[0]->config.client_address), two(cluster.members[0]->config.client_address);
  auto options = cluster.options();
  options.endpoints = {one.address(), two.address()};
  auto store = Cluster::ready(options);
  ASSERT_NE(store, nullptr);
  Recorder seen;
  auto watch = store->watch("w/", seen);
  ASSERT_TRUE(direct->commit(put("w/a", "1")).ok());
  ASSERT_TRUE(seen.wait_for_state({{"w/a", "1"}}));
  two.set(Relay::Mode::hold);
  one.set(Relay::Mode::refuse);
  ASSERT_TRUE(direct->commit(put("w/a", "2")).ok());
  ASSERT_TRUE(direct->commit(contract::erase("w/a")).ok());
  const auto last = direct->commit(put("w/b", "3"));
  ASSERT_TRUE(last.ok());
  ASSERT_NE(cluster.control("compact " + std::to_string(last->version)).find("compacted"), std::string::npos);
  two.set(Relay::Mode::pass);
  EXPECT_TRUE(seen.wait_for_state({{"w/b", "3"}}));
  ASSERT_TRUE(direct->commit(put("w/c", "4")).ok());
  EXPECT_TRUE(seen.wait_for_state({{"w/b", "3"}, {"w/c", "4"}}));
  watch->reset();
  EXPECT_GE(seen.resets, 2);
  EXPECT_FALSE(seen.out_of_order);
}

// Goal: a watch whose contact broke misses nothing and repeats nothing. Method: connections are cut between
// writes.
TEST(EtcdStore, a_watch_resumes_where_it_was_cut) {
  Cluster cluster(1);
  auto direct = Cluster::ready(cluster.options());
  ASSERT_NE(direct, nullptr);
  Relay one(cluster.members[0]->config.client_address), two(cluster.members[0]->config.client_address);
  auto options = cluster.options();
  options.endpoints = {one.address(), two.address()};
  auto store = Cluster::ready(options);
  ASSERT_NE(store, nullptr);
  Recorder seen;
  auto watch = store->watch("", seen);
  ASSERT_TRUE(seen.wait_for_state({}));
  std::map<std::string, std::string> wanted;
  for (int i = 0; i < 6; ++i) {
    one.set(i % 2 == 0 ? Relay::Mode::pass : Relay::Mode::refuse);
    two.set(i % 2 == 0 ? Relay::Mode::refuse : Relay::Mode::pass);
    wanted["k" + std::to_string(i)] = "1";
    ASSERT_TRUE(direct->commit(put("k" + std::to_string(i), "1")).ok());
    ASSERT_TRUE(seen.wait_for_state(wanted));
  }
  watch->reset();
  EXPECT_FALSE(seen.out_of_order);
}

TEST(CopyStore, a_single_host_grows_into_a_cluster) {
  Cluster cluster(1);
  auto to = Cluster::ready(cluster.options());
  ASSERT_NE(to, nullptr);
  auto from = sqlite::SqliteStore::open({cluster.folder.path() + "/store.db"});
  ASSERT_TRUE(from.ok());
  const auto lease = (*from)->grant(60s);
  ASSERT_TRUE((*from)->commit(put("sessions/host1", "1", *lease)).ok());
  for (int i = 0; i < 300; ++i)
    ASSERT_TRUE((*from)->commit(put("vms/" + std::to_string(1000 + i), std::string(5000, 'v'))).ok());
  const Status copied = copy_store(**from, *to);
  ASSERT_TRUE(copied.ok()) << copied.error().what;
  const auto before = (*from)->list("vms/");
  const auto after = to->list("");
  ASSERT_EQ(after->entries.size(), before->entries.size());
  for (std::size_t i = 0; i < before->entries.size(); ++i) {
    EXPECT_EQ(after->entries[i].key, before->entries[i].key);
    EXPECT_EQ(after->entries[i].value, before->entries[i].value);
  }
  EXPECT_EQ(copy_store(**from, *to).code(), Code::exists);
}

}  // namespace
}  // namespace hf::etcd
