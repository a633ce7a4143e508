// Goal: a lab's settings survive their file, bad ones are refused, and its names and paths fit.
#include "lab/layout.hpp"

#include <gtest/gtest.h>

namespace hf::lab {
namespace {

TEST(Layout, config_survives_its_json) {
  LabConfig config;
  config.name = "two";
  config.hosts = 2;
  config.api_ports = {7444, 7446};
  const auto read = config_from_json(to_json(config));
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->name, "two");
  EXPECT_EQ(read->hosts, 2);
  EXPECT_EQ(read->api_ports, config.api_ports);
  EXPECT_EQ(read->datastores, config.datastores);
}

TEST(Layout, broken_json_is_corrupt) {
  EXPECT_EQ(config_from_json("{").code(), Code::corrupt);
  EXPECT_EQ(config_from_json("{}").code(), Code::corrupt);
}

TEST(Layout, bad_names_and_numbers_are_refused) {
  const auto code = [](const std::string& name, int hosts, std::vector<std::string> datastores) {
    LabConfig config;
    config.name = name;
    config.hosts = hosts;
    config.datastores = std::move(datastores);
    const auto checked = check(config);
    return checked ? Code::failed : checked.code();
  };
  EXPECT_EQ(code("lab", 3, {"a"}), Code::failed) << "a good one passes";
  EXPECT_EQ(code("guest", 3, {}), Code::invalid);
  EXPECT_EQ(code("../x", 3, {}), Code::invalid);
  EXPECT_EQ(code("lab", 0, {}), Code::invalid);
  EXPECT_EQ(code("lab", kHostsMax + 1, {}), Code::invalid);
  EXPECT_EQ(code("lab", 3, {"a", "a"}), Code::invalid);
  EXPECT_EQ(code("lab", 3, {"local"}), Code::invalid);
}

TEST(Layout, socket_paths_fit) {
  const Layout layout{.base = "/var/lib/holdfast/lab", .name = std::string(16, 'x'), .cgroup2 = "/c"};
  EXPECT_LT((layout.host_run_dir("host32") + "/vms/vm-1f3a9c0e/console.sock").size(), 108u);
}

TEST(Layout, cgroup2_is_found_where_it_is) {
  EXPECT_EQ(cgroup2_mount("31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
                          "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"),
            "/sys/fs/cgroup/unified");
  EXPECT_EQ(cgroup2_mount("36 25 0:31 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw\n"),
            "/sys/fs/cgroup");
  EXPECT_EQ(cgroup2_mount("37 31 0:34 / /x rw - cgroup cgroup rw,freezer\n"), "");
}

}  // namespace
}  // namespace hf::lab
