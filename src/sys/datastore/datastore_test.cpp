// Goal: what stands on a datastore is found by content, written durably, refused when damaged, and a hung
// call costs one thread.
#include "sys/datastore/datastore.hpp"

#include <gtest/gtest.h>
#include <sys/mount.h>

#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <mutex>

#include "base/testing/temp_folder.hpp"
#include "core/ha/slot.hpp"
#include "sys/datastore/call_worker.hpp"

namespace hf::datastore {
namespace {

const DatastoreId kId("ds-1");
const HostId kHost("host1");

class Datastore : public testing::TestWithParam<const char*> {
 protected:
  void mark() { ASSERT_TRUE(make_marker(mount_, {kId, "nfs1", 5}).ok()); }
  const test::TempFolder temp_{GetParam()};
  const std::string mount_ = temp_.path();
};
INSTANTIATE_TEST_SUITE_P(DiskAndTmpfs, Datastore, testing::Values("/var/tmp", "/dev/shm"));

ha::OwnerFile owner(std::uint64_t epoch, const std::string& host) {
  vm::VmSpec spec;
  spec.name = "web";
  return ha::OwnerFile{VmId("vm-1"), HostId(host), SessionId("s-1"), Epoch{epoch}, spec};
}

TEST_P(Datastore, marker_is_found_by_content) {
  EXPECT_EQ(read_marker(mount_).code(), Code::not_found);
  mark();
  EXPECT_EQ(read_marker(mount_)->name, "nfs1");
  EXPECT_TRUE(check_marker(mount_, kId).ok());
  EXPECT_EQ(check_marker(mount_, DatastoreId("ds-2")).code(), Code::conflict);
  EXPECT_EQ(make_marker(mount_, {DatastoreId("ds-2"), "other", 5}).code(), Code::exists);
  EXPECT_EQ(read_marker(mount_)->id, kId);
}

TEST_P(Datastore, a_damaged_marker_is_corrupt_and_a_missing_mount_not_found) {
  mark();
  std::ofstream(mount_ + "/.holdfast/datastore.json") << "{\"format\":1,\"id\"";
  EXPECT_EQ(read_marker(mount_).code(), Code::corrupt);
  EXPECT_EQ(make_marker(mount_ + "/nowhere", {kId, "x", 0}).code(), Code::not_found);
}

TEST_P(Datastore, slot_is_written_in_place_and_read_back) {
  mark();
  ha::Slot slot;
  slot.host = kHost;
  ASSERT_TRUE(make_slot(mount_, kId, kHost).ok());
  for (slot.sequence = 1; slot.sequence < 20; ++slot.sequence) {
    ASSERT_TRUE(write_slot(mount_, kId, kHost, encode_slot(slot)).ok());
    const auto bytes = read_slot(mount_, kHost);
    ASSERT_TRUE(bytes.ok()) << bytes.error().what;
    EXPECT_EQ(*ha::decode_slot(*bytes), slot);
  }
  ASSERT_TRUE(make_slot(mount_, kId, kHost).ok());
  EXPECT_EQ(ha::decode_slot(*read_slot(mount_, kHost))->sequence, 19U);
  EXPECT_EQ(read_slot(mount_, HostId("host2")).code(), Code::not_found);
}

TEST_P(Datastore, a_slot_is_not_renewed_below_an_unmounted_mount_point_or_on_another_datastore) {
  const std::string bytes = ha::encode_slot({});
  EXPECT_EQ(make_slot(mount_, kId, kHost).code(), Code::not_found);
  EXPECT_EQ(write_slot(mount_, kId, kHost, bytes).code(), Code::not_found);
  mark();
  EXPECT_EQ(write_slot(mount_, kId, kHost, bytes).code(), Code::not_found);
  ASSERT_TRUE(make_slot(mount_, kId, kHost).ok());
  EXPECT_EQ(write_slot(mount_, DatastoreId("ds-2"), kHost, bytes).code(), Code::conflict);
}

TEST_P(Datastore, names_that_are_paths_are_refused) {
  mark();
  for (const char* name : {"", "..", "../x", "a/b"}) {
    EXPECT_EQ(make_slot(mount_, kId, HostId(name)).code(), Code::invalid);
    EXPECT_EQ(read_owner(mount_, VmId(name)).code(), Code::invalid);
  }
}

TEST_P(Datastore, owner_is_confirmed_only_upwards) {
  mark();
  ASSERT_TRUE(confirm_owner(mount_, owner(3, "host1")).ok());
  ASSERT_TRUE(confirm_owner(mount_, owner(3, "host1")).ok());
  EXPECT_EQ(confirm_owner(mount_, owner(3, "host2")).code(), Code::conflict);
  ASSERT_TRUE(confirm_owner(mount_, owner(4, "host2")).ok());
  EXPECT_EQ(confirm_owner(mount_, owner(3, "host1")).code(), Code::conflict);
  EXPECT_EQ(*read_owner(mount_, VmId("vm-1")), owner(4, "host2"));
  EXPECT_EQ(*list_owners(mount_), std::vector<VmId>{VmId("vm-1")});
}

TEST_P(Datastore, a_damaged_owner_file_gives_nobody_the_right) {
  mark();
  ASSERT_TRUE(confirm_owner(mount_, owner(3, "host1")).ok());
  const std::string path = mount_ + "/.holdfast/vms/vm-1.owner";
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 3);
  const Status status = confirm_owner(mount_, owner(9, "host1"));
  EXPECT_EQ(status.code(), Code::corrupt);
  EXPECT_NE(status.error().what.find(path), std::string::npos);
  EXPECT_EQ(erase_owner(mount_, VmId("vm-1"), Epoch{9}).code(), Code::corrupt);
}

TEST_P(Datastore, owner_is_erased_unless_it_is_newer) {
  mark();
  EXPECT_TRUE(erase_owner(mount_, VmId("vm-1"), Epoch{1}).ok());
  ASSERT_TRUE(confirm_owner(mount_, owner(3, "host1")).ok());
  EXPECT_EQ(erase_owner(mount_, VmId("vm-1"), Epoch{2}).code(), Code::conflict);
  EXPECT_TRUE(erase_owner(mount_, VmId("vm-1"), Epoch{3}).ok());
  EXPECT_EQ(read_owner(mount_, VmId("vm-1")).code(), Code::not_found);
}

struct Gate {
  std::mutex mutex;
  std::condition_variable changed;
  bool is_open = false;
  void wait() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [this] { return is_open; });
  }
  void open() {
    const std::lock_guard lock(mutex);
    is_open = true;
    changed.notify_all();
  }
};

TEST(FullDatastore, owner_that_cannot_be_written_is_no_room_and_the_old_one_stands) {
  test::TempFolder folder;
  if (::mount("tmpfs", folder.path().c_str(), "tmpfs", 0, "size=64k") != 0) GTEST_SKIP() << "needs root";
  const std::unique_ptr<const char, int (*)(const char*)> mounted(
      folder.path().c_str(), [](const char* path) { return ::umount2(path, MNT_DETACH); });
  ASSERT_TRUE(make_marker(folder.path(), {kId, "nfs1", 5}).ok());
  ASSERT_TRUE(confirm_owner(folder.path(), owner(1, "host1")).ok());
  {
    std::ofstream fill(folder / "filler", std::ios::binary);
    while (fill << std::string(4096, 'f') && fill.flush()) {
    }
  }
  const Status full = confirm_owner(folder.path(), owner(2, "host2"));
  EXPECT_EQ(full.code(), Code::no_room);
  EXPECT_NE(full.error().what.find("is full"), std::string::npos) << full.error().what;
  EXPECT_FALSE(std::filesystem::exists(folder / ".holdfast/vms/vm-1.owner.new"));
  EXPECT_EQ(read_owner(folder.path(), VmId("vm-1"))->host, HostId("host1"));
  std::filesystem::remove(folder / "filler");
  EXPECT_TRUE(confirm_owner(folder.path(), owner(2, "host2")).ok());
}

TEST(CallWorker, returns_results_and_errors) {
  CallWorker worker;
  EXPECT_EQ(*worker.run<int>(10s, [] { return Result<int>(7); }), 7);
  EXPECT_EQ(worker.run<int>(10s, [] { return Result<int>(Error{Code::corrupt, "x"}); }).code(),
            Code::corrupt);
  EXPECT_TRUE(worker.run<void>(10s, [] { return Status{}; }).ok());
}

TEST(CallWorker, gives_up_on_a_hung_call_refuses_others_meanwhile_and_recovers) {
  auto gate = std::make_shared<Gate>();  // owned by the hung call as well
  CallWorker worker;
  EXPECT_EQ(worker
                .run<int>(1ms,
                          [gate] {
                            gate->wait();
                            return Result<int>(1);
                          })
                .code(),
            Code::timed_out);
  EXPECT_TRUE(worker.stuck());
  EXPECT_EQ(worker.run<int>(1ms, [] { return Result<int>(2); }).code(), Code::timed_out);
  gate->open();
  EXPECT_EQ(*worker.run<int>(60s, [] { return Result<int>(3); }), 3);
  EXPECT_FALSE(worker.stuck());
}

TEST(CallWorker, is_destroyed_while_a_call_hangs) {
  auto gate = std::make_shared<Gate>();
  {
    CallWorker worker;
    const auto hang = [gate] {
      gate->wait();
      return Result<int>(1);
    };
    EXPECT_FALSE(worker.run<int>(1ms, hang).ok());
  }
  gate->open();
}

}  // namespace
}  // namespace hf::datastore
