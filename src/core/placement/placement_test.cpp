// Goal: a VM goes only where it can run, to the emptiest such host, and a refusal says why for every host.
#include "core/placement/placement.hpp"

#include <gtest/gtest.h>

namespace hf::placement {
namespace {

record::HostRecord host(const std::string& name, std::uint64_t memory_mib) {
  record::HostRecord record;
  record.host = HostId(name);
  record.memory_mib = memory_mib;
  record.datastores = {{"ds-1", "/mnt/1"}};
  record.networks = {"vm"};
  return record;
}

TEST(Placement, the_emptiest_host_that_fits_is_chosen) {
  const auto a = host("a", 1000), b = host("b", 1000), c = host("c", 200);
  Need need;
  need.memory_mib = 300;
  EXPECT_EQ(choose({{&a, 500, 1}, {&b, 100, 1}, {&c, 0, 0}}, need)->text, "b");
}

TEST(Placement, a_tie_goes_to_fewer_vms_then_to_the_name) {
  const auto a = host("a", 1000), b = host("b", 1000);
  Need need;
  need.memory_mib = 100;
  EXPECT_EQ(choose({{&a, 0, 2}, {&b, 0, 1}}, need)->text, "b");
  EXPECT_EQ(choose({{&b, 0, 1}, {&a, 0, 1}}, need)->text, "a");
}

TEST(Placement, each_obstacle_is_named_and_nothing_is_chosen) {
  const auto a = host("a", 1000), b = host("b", 1000), c = host("c", 1000), d = host("d", 1000);
  Need need;
  need.memory_mib = 600;
  need.datastores = {"ds-2"};
  need.excluded = {"c"};
  auto refused = choose({{&a, 500, 1}, {&b, 0, 0}, {&c, 0, 0}}, need);
  EXPECT_EQ(refused.code(), Code::no_room);
  EXPECT_EQ(refused.error().what,
            "No host can take a VM of 600 MiB: a has 500 of 1000 MiB free, b does not see datastore ds-2, "
            "c failed to start "
            "it.");
  need.datastores = {};
  need.networks = {"dmz"};
  EXPECT_EQ(obstacles({&d, 0, 0}, need), std::vector<std::string>{"does not have network dmz"});
  need.pinned_host = "a";
  EXPECT_EQ(obstacles({&d, 0, 0}, need),
            (std::vector<std::string>{"is not the host that was asked for", "does not have network dmz"}));
}

TEST(Placement, closed_host_is_passed_over_however_empty_it_is) {
  const auto a = host("a", 1000), b = host("b", 1000);
  Need need;
  need.memory_mib = 100;
  EXPECT_EQ(choose({{&a, 0, 0, "is in maintenance"}, {&b, 500, 3}}, need)->text, "b");
  EXPECT_EQ(choose({{&a, 0, 0, "is in maintenance"}}, need).error().what,
            "No host can take a VM of 100 MiB: a is in maintenance.");
}

}  // namespace
}  // namespace hf::placement
