// Goal: the simulator's typed store and StoreModel, which passes the store contract, cannot drift apart.
// Method: the same random calls to both; every answer, every key and every version must be the same.
#include "sim/world_store.hpp"

#include <gtest/gtest.h>

#include "base/rng.hpp"
#include "sim/memory_store.hpp"

namespace hf::sim {
namespace {

class BothStores {
 public:
  explicit BothStores(std::uint64_t seed) : rng_(seed) {}

  void step() {
    now_ += Duration(rng_.between(0, 700'000'000));
    switch (rng_.below(8)) {
      case 0:
        return grant();
      case 1:
        return keep_alive();
      case 2:
        return expire();
      default:
        return commit();
    }
  }

  void expect_same() {
    const auto model = model_.list("");
    const auto world = world_.all();
    ASSERT_EQ(world.size(), model.entries.size());
    EXPECT_EQ(world_.version(), model.version);
    for (std::size_t at = 0; at < world.size(); ++at) {
      EXPECT_EQ(world[at].key, model.entries[at].key);
      EXPECT_EQ(world[at].version, model.entries[at].version);
      EXPECT_EQ(std::get<record::SessionRecord>(world[at].value).session.text, model.entries[at].value);
      EXPECT_EQ(world_.get(world[at].key)->lease, model.entries[at].lease.number);
    }
  }

 private:
  Instant instant() const { return Instant(now_); }
  std::int64_t any_lease() { return rng_.between(0, leases_); }

  void grant() {
    const auto granted = model_.grant(3s, instant());
    ASSERT_TRUE(granted.ok());
    EXPECT_EQ(world_.grant(3s, now_), granted->number);
    leases_ = granted->number;
  }

  void keep_alive() {
    const auto lease = any_lease();
    EXPECT_EQ(world_.keep_alive(lease, now_), model_.keep_alive(LeaseId{lease}, instant()).ok());
  }

  void expire() {
    model_.expire(instant());
    world_.expire(now_);
  }

  void commit() {
    Txn txn;
    ha::TypedTxn typed;
    for (auto n = rng_.below(3); n > 0; --n) {
      const std::string key = std::string("sessions/") + static_cast<char>('a' + rng_.below(6));
      const auto* entry = world_.get(key);
      const Version version = rng_.chance(15) ? 1 : entry == nullptr ? 0 : entry->version;
      txn.conditions.push_back({key, version});
      typed.conditions.push_back({key, version});
    }
    // Each key once: a transaction that writes a key twice is refused by the contract.
    for (char letter = 'a'; letter <= 'f'; ++letter) {
      if (!rng_.chance(30)) continue;
      const std::string key = std::string("sessions/") + letter, value = std::to_string(rng_.below(1000));
      const auto lease = rng_.chance(50) ? 0 : any_lease();
      const bool erase = rng_.chance(20);
      txn.writes.push_back({key, erase ? "" : value, LeaseId{erase ? 0 : lease}, erase});
      if (erase)
        typed.writes.push_back({key, {}, 0});
      else
        typed.writes.push_back({key, record::SessionRecord{SessionId(value)}, lease});
    }
    const auto committed = model_.commit(txn);
    const bool done = committed.ok() && committed->done;
    ASSERT_EQ(world_.accepts(typed), done);
    if (done) {
      EXPECT_EQ(world_.commit(typed), committed->version);
    }
  }

  Rng rng_;
  Time now_{0};
  std::int64_t leases_ = 0;
  StoreModel model_;
  WorldStore world_;
};

TEST(WorldStore, same_calls_give_the_same_as_the_contract_model) {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    BothStores both(seed);
    for (int step = 0; step < 300 && !::testing::Test::HasFailure(); ++step) {
      both.step();
      both.expect_same();
    }
    ASSERT_FALSE(::testing::Test::HasFailure()) << seed;
  }
}

}  // namespace
}  // namespace hf::sim
