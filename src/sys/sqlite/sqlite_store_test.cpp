// Goal: the store of a single host keeps the contract of every store, and its file survives what files meet: a
// second opener, damage, a full disk. Method: the contract's suite, and real files.
#include "sys/sqlite/sqlite_store.hpp"

#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>

#include "base/testing/temp_folder.hpp"
#include "port/copy_store.hpp"
#include "port/store_contract.hpp"

namespace hf::contract {
namespace {

using sqlite::SqliteOptions;
using sqlite::SqliteStore;
using test::TempFolder;

class SqliteWorld final : public StoreWorld {
 public:
  SqliteWorld() { restart(); }
  Store& store() override { return *store_; }
  Store* second() override { return nullptr; }
  Instant now() override { return Instant(Duration(clock_)); }
  void pass() override { clock_ += Duration(20ms).count(); }
  bool restart() override {
    store_.reset();
    auto opened = SqliteStore::open({folder_ / "store.db", [this] { return now(); }});
    EXPECT_TRUE(opened.ok()) << opened.error().what;
    store_ = std::move(opened).value();
    return true;
  }

 private:
  TempFolder folder_;
  std::atomic<std::int64_t> clock_{Duration(3600s).count()};
  std::unique_ptr<SqliteStore> store_;
};

INSTANTIATE_TEST_SUITE_P(Sqlite, StoreContract,
                         ::testing::Values(StoreMaker{"sqlite",
                                                      [] { return std::make_unique<SqliteWorld>(); }}));

// Goal: a watch hears of a lease's end although nobody calls the store. Method: the real clock.
TEST(SqliteStore, a_lease_ends_without_any_call) {
  TempFolder folder;
  auto store = SqliteStore::open({folder / "store.db"});
  ASSERT_TRUE(store.ok()) << store.error().what;
  const LeaseId lease = *(*store)->grant(2s);
  ASSERT_TRUE((*store)->commit(put("a", "1", lease))->done);
  Recorder seen;
  auto watch = (*store)->watch("", seen);
  EXPECT_TRUE(seen.wait_for_state({{"a", "1"}}));
  EXPECT_TRUE(seen.wait_for_state({}));
}

TEST(SqliteStore, after_a_reopen_leases_have_their_whole_ttl_again) {
  TempFolder folder;
  std::atomic<std::int64_t> seconds{1000};
  const SqliteOptions options{folder / "store.db", [&] { return Instant(std::chrono::seconds(seconds)); }};
  auto store = SqliteStore::open(options);
  const LeaseId lease = *(*store)->grant(10s);
  ASSERT_TRUE((*store)->commit(put("a", "1", lease))->done);
  seconds += 9;
  store->reset();
  store = SqliteStore::open(options);
  seconds += 9;
  EXPECT_TRUE((*store)->get("a").ok());
  seconds += 1;
  EXPECT_EQ((*store)->get("a").code(), Code::not_found);
  EXPECT_NE(*(*store)->grant(10s), lease);
}

TEST(SqliteStore, a_second_open_is_refused) {
  TempFolder folder;
  auto store = SqliteStore::open({folder / "store.db"});
  ASSERT_TRUE(store.ok());
  EXPECT_EQ(SqliteStore::open({folder / "store.db"}).code(), Code::conflict);
  store->reset();
  EXPECT_TRUE(SqliteStore::open({folder / "store.db"}).ok());
}

TEST(SqliteStore, only_the_owner_can_read_the_file) {
  TempFolder folder;
  auto store = SqliteStore::open({folder / "store.db"});
  ASSERT_TRUE((*store)->commit(put("secrets/ca", "1"))->done);
  for (const auto& file : std::filesystem::directory_iterator(folder.path())) {
    struct stat about{};
    ASSERT_EQ(::stat(file.path().c_str(), &about), 0);
    EXPECT_EQ(about.st_mode & 0777, 0600u) << file.path();
  }
}

TEST(SqliteStore, a_file_that_is_no_store_is_corrupt) {
  TempFolder folder;
  std::ofstream(folder / "store.db") << std::string(10000, 'x');
  const auto opened = SqliteStore::open({folder / "store.db"});
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.code(), Code::corrupt) << opened.error().what;
}

TEST(SqliteStore, a_damaged_file_is_corrupt) {
  TempFolder folder;
  {
    auto store = SqliteStore::open({folder / "store.db"});
    for (int i = 0; i < 50; ++i)
      ASSERT_TRUE((*store)->commit(put(std::to_string(i), std::string(2000, 'v')))->done);
  }
  const auto size = std::filesystem::file_size(folder / "store.db");
  std::fstream file(folder / "store.db", std::ios::in | std::ios::out | std::ios::binary);
  for (std::uintmax_t at = 4096; at < size; at += 4096) {
    file.seekp(static_cast<std::streamoff>(at));
    file << std::string(512, '\x5a');
  }
  file.close();
  const auto opened = SqliteStore::open({folder / "store.db"});
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.code(), Code::corrupt) << opened.error().what;
}

TEST(SqliteStore, a_missing_folder_is_not_found) {
  EXPECT_EQ(SqliteStore::open({"/nonexistent/store.db"}).code(), Code::not_found);
}

// Goal: a full disk is told as such, changes nothing, and ends when there is room. Method: a small file
// system.
TEST(SqliteStore, a_full_disk_is_no_room) {
  TempFolder folder;
  if (::mount("tmpfs", folder.path().c_str(), "tmpfs", 0, "size=512k") != 0) GTEST_SKIP() << "needs root";
  const std::unique_ptr<const char, int (*)(const char*)> mounted(
      folder.path().c_str(), [](const char* path) { return ::umount2(path, MNT_DETACH); });
  {
    const std::string filler = folder.path() + "/filler";
    auto store = SqliteStore::open({folder / "store.db"});
    ASSERT_TRUE(store.ok()) << store.error().what;
    ASSERT_TRUE((*store)->commit(put("a", "1"))->done);
    {
      std::ofstream fill(filler, std::ios::binary);
      while (fill << std::string(4096, 'f') && fill.flush()) {
      }
    }
    const auto full = (*store)->commit(put("a", std::string(100'000, 'x')));
    ASSERT_FALSE(full.ok());
    EXPECT_EQ(full.code(), Code::no_room) << full.error().what;
    EXPECT_EQ((*store)->get("a")->value, "1");
    std::filesystem::remove(filler);
    EXPECT_TRUE((*store)->commit(put("a", std::string(100'000, 'x')))->done);
  }
}

TEST(CopyStore, takes_what_no_lease_binds_and_refuses_a_used_destination) {
  TempFolder one, two;
  auto from = SqliteStore::open({one / "store.db"});
  auto to = SqliteStore::open({two / "store.db"});
  const LeaseId lease = *(*from)->grant(60s);
  for (int i = 0; i < 300; ++i)
    ASSERT_TRUE((*from)->commit(put("k" + std::to_string(i), std::string(9000, 'v')))->done);
  ASSERT_TRUE((*from)->commit(put("sessions/host1", "1", lease))->done);
  ASSERT_TRUE(copy_store(**from, **to).ok());
  const auto copied = (*to)->list("");
  EXPECT_EQ(copied->entries.size(), 300u);
  EXPECT_EQ((*to)->get("k7")->value, std::string(9000, 'v'));
  EXPECT_EQ(copy_store(**from, **to).code(), Code::exists);
}

}  // namespace
}  // namespace hf::contract
