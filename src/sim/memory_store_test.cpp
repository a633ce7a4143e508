// Goal: the store in memory keeps the contract of every store. Method: the contract's suite.
#include "sim/memory_store.hpp"

#include "port/store_contract.hpp"

namespace hf::contract {
namespace {

using sim::MemoryStore;
using sim::StoreModel;

class MemoryWorld final : public StoreWorld {
 public:
  Store& store() override { return first_; }
  Store* second() override { return &second_; }
  Instant now() override { return MemoryStore::now(*backend_); }
  void pass() override { MemoryStore::advance(*backend_, 20ms); }
  bool restart() override { return false; }

 private:
  std::shared_ptr<MemoryStore::Backend> backend_ = MemoryStore::make_backend();
  MemoryStore first_{backend_}, second_{backend_};
};

INSTANTIATE_TEST_SUITE_P(Memory, StoreContract,
                         ::testing::Values(StoreMaker{"memory",
                                                      [] { return std::make_unique<MemoryWorld>(); }}));

constexpr Instant kStart{1000s};

// Goal: the driver decides when leases end. Method: the time is over, but expire() has not come by.
TEST(StoreModel, a_lease_ends_only_in_expire_but_cannot_be_kept_alive_any_more) {
  StoreModel model;
  const LeaseId lease = *model.grant(2s, kStart);
  ASSERT_TRUE(model.commit(put("a", "1", lease))->done);
  EXPECT_EQ(model.next_expiry(), kStart + 2s);
  model.expire(kStart + 2s - 1ns);
  EXPECT_TRUE(model.get("a").ok());
  EXPECT_TRUE(model.keep_alive(lease, kStart + 1s).ok());
  EXPECT_EQ(model.keep_alive(lease, kStart + 3s).code(), Code::not_found);
  EXPECT_TRUE(model.get("a").ok());
  model.expire(kStart + 3s);
  EXPECT_EQ(model.get("a").code(), Code::not_found);
  EXPECT_EQ(model.next_expiry(), std::nullopt);
}

TEST(StoreModel, changes_since_gives_the_batches_in_order_and_nothing_after_compaction) {
  StoreModel model;
  const Version start = model.version();
  ASSERT_TRUE(model.commit(Txn{{}, {{"w/b", "1"}, {"x", "1"}, {"w/a", "1"}}})->done);
  ASSERT_TRUE(model.commit(put("x", "2"))->done);
  const Version last = model.commit(erase("w/a"))->version;
  const auto batches = model.changes_since(start, "w/");
  ASSERT_TRUE(batches.has_value());
  ASSERT_EQ(batches->size(), 2u);
  EXPECT_EQ((*batches)[0].changes.size(), 2u);
  EXPECT_EQ((*batches)[0].changes[0].entry.key, "w/a");
  EXPECT_TRUE((*batches)[1].changes[0].erased);
  EXPECT_EQ((*batches)[1].version, last);
  model.compact(last - 1);
  EXPECT_FALSE(model.changes_since(start, "w/").has_value());
  EXPECT_EQ(model.changes_since(last - 1, "w/")->size(), 1u);
  EXPECT_TRUE(model.changes_since(last, "w/")->empty());
}

TEST(StoreModel, a_full_history_forgets_the_oldest) {
  StoreModel model(2);
  const Version start = model.version();
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(model.commit(put("a", std::to_string(i)))->done);
  EXPECT_FALSE(model.changes_since(start, "").has_value());
  EXPECT_EQ(model.changes_since(start + 1, "")->size(), 2u);
}

TEST(StoreModel, a_key_bound_anew_outlives_its_first_lease) {
  StoreModel model;
  const LeaseId first = *model.grant(2s, kStart);
  const LeaseId second = *model.grant(60s, kStart);
  ASSERT_TRUE(model.commit(put("a", "1", first))->done);
  ASSERT_TRUE(model.commit(put("a", "2", second))->done);
  model.expire(kStart + 10s);
  EXPECT_EQ(model.get("a")->lease, second);
}

}  // namespace
}  // namespace hf::contract
