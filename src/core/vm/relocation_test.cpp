// Goal: a relocation moves exactly what it names, and every file it makes has a name of its own.
#include "core/vm/relocation.hpp"

#include <gtest/gtest.h>

namespace hf::vm {
namespace {

VmSpec web() {
  VmSpec spec;
  spec.name = "web";
  spec.datastore = "slow";
  spec.disks = {{"root", "", 1 << 20, DiskFormat::qcow2, ""}, {"data", "bulk", 1 << 20, DiskFormat::raw, ""}};
  spec.cloud_init.emplace();
  return spec;
}

TEST(Relocation, whole_vm_takes_disks_seed_and_home_along) {
  const auto after = relocated(web(), {"fast", "", "", "t-1"});
  ASSERT_TRUE(after.ok());
  EXPECT_EQ(after->datastore, "fast");
  EXPECT_EQ(image_file(after->disks[0]), "root.t-1.qcow2");
  EXPECT_EQ(image_file(after->disks[1]), "data.t-1.raw");
  EXPECT_EQ(datastore_of(after->disks[1], *after), "fast");
  EXPECT_EQ(seed_file(*after), "seed.t-1.iso");
  EXPECT_TRUE(is_relocated(*after, {"fast", "", "", "t-1"}));
  const std::vector<PlacedFile> left = {{"slow", "root.qcow2"}, {"bulk", "data.raw"}, {"slow", "seed.iso"}};
  EXPECT_EQ(files_only_in(web(), *after), left);
}

TEST(Relocation, one_disk_goes_alone) {
  const auto after = relocated(web(), {"fast", "raw", "root", "t-1"});
  ASSERT_TRUE(after.ok());
  EXPECT_EQ(after->datastore, "slow");
  EXPECT_EQ(after->disks[0].datastore, "fast");
  EXPECT_EQ(image_file(after->disks[0]), "root.t-1.raw");
  EXPECT_EQ(after->disks[1], web().disks[1]);
  EXPECT_EQ(seed_file(*after), "seed.iso");
}

TEST(Relocation, disk_that_comes_home_follows_the_vm_again) {
  const auto after = relocated(web(), {"slow", "", "data", "t-1"});
  ASSERT_TRUE(after.ok());
  EXPECT_EQ(after->disks[1].datastore, "");
  EXPECT_EQ(image_file(after->disks[1]), "data.t-1.raw");
}

TEST(Relocation, disk_that_is_there_already_stays) {
  const auto after = relocated(web(), {"bulk", "", "", "t-1"});
  ASSERT_TRUE(after.ok());
  EXPECT_EQ(image_file(after->disks[1]), "data.raw");
  const std::vector<PlacedFile> made = {{"bulk", "root.t-1.qcow2"}, {"bulk", "seed.t-1.iso"}};
  EXPECT_EQ(files_only_in(*after, web()), made);
}

TEST(Relocation, there_and_back_has_no_name_twice) {
  const auto there = relocated(web(), {"fast", "", "", "t-1"});
  const auto back = relocated(*there, {"slow", "", "", "t-2"});
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(image_file(back->disks[0]), "root.t-2.qcow2");
  EXPECT_EQ(files_only_in(web(), *back).size(), 3U);
}

TEST(Relocation, conversion_in_place_is_one_too) {
  const auto after = relocated(web(), {"slow", "raw", "root", "t-1"});
  ASSERT_TRUE(after.ok());
  EXPECT_EQ(after->disks[0].datastore, "");
  EXPECT_EQ(image_file(after->disks[0]), "root.t-1.raw");
}

TEST(Relocation, nothing_to_move_and_unknown_disks_are_refused) {
  EXPECT_EQ(relocated(web(), {"slow", "", "root", "t-1"}).code(), Code::invalid);
  EXPECT_EQ(relocated(web(), {"slow", "qcow2", "root", "t-1"}).code(), Code::invalid);
  EXPECT_EQ(relocated(web(), {"fast", "", "log", "t-1"}).code(), Code::invalid);
  EXPECT_EQ(relocated(web(), {"fast", "vmdk", "", "t-1"}).code(), Code::invalid);
}

TEST(Relocation, tags_survive_the_store_and_are_not_the_users_word) {
  const auto after = relocated(web(), {"fast", "", "", "t-1"});
  const auto read = spec_from_json(to_json(*after));
  ASSERT_TRUE(read.ok()) << read.error().what;
  EXPECT_EQ(*read, *after);
}

}  // namespace
}  // namespace hf::vm
