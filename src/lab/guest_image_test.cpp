// Goal: the parts of the test guest's image are made right: module order, archive entries, services. Method: text in,
// bytes out.
#include "lab/guest_image.hpp"

#include <gtest/gtest.h>

#include "lab/services.hpp"

namespace hf::lab {
namespace {

TEST(GuestImage, dependencies_of_a_module_are_read) {
  const std::string module("junk\0license=GPL\0depends=virtio,virtio-ring,net_failover\0name=x\0", 64);
  EXPECT_EQ(module_dependencies(module), (std::vector<std::string>{"virtio", "virtio_ring", "net_failover"}));
  EXPECT_TRUE(module_dependencies(std::string("\0depends=\0x", 11)).empty());
  EXPECT_TRUE(module_dependencies("").empty());
}

TEST(GuestImage, archive_entries_are_aligned_and_end_with_the_trailer) {
  const std::string archive = cpio_archive({{.path = "a", .content = "12345"}});
  EXPECT_EQ(archive.size() % 4, 0u);
  EXPECT_EQ(archive.substr(0, 6), "070701");
  EXPECT_EQ(archive.substr(54, 8), "00000005") << "file size";
  EXPECT_EQ(archive.substr(112, 5), "12345");
  EXPECT_NE(archive.find("TRAILER!!!"), std::string::npos);
}

TEST(Services, survive_their_json) {
  const Layout layout{.base = "/b", .name = "lab", .cgroup2 = "/c"};
  const auto services = services_of(layout, LabConfig{.api_ports = {}}, 2, "/opt/bin");
  const auto read = services_from_json(to_json(services));
  ASSERT_TRUE(read.ok());
  ASSERT_EQ(read->size(), services.size());
  for (std::size_t i = 0; i < services.size(); ++i) {
    EXPECT_EQ((*read)[i].name, services[i].name);
    EXPECT_EQ((*read)[i].argv, services[i].argv);
    EXPECT_EQ((*read)[i].nice, services[i].nice);
  }
  EXPECT_EQ(services_from_json("{").ok() && !services_from_json("{")->empty(), false);
}

}  // namespace
}  // namespace hf::lab
