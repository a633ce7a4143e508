// Goal: the JSON form is held to the same rules as the file, and names the JSON path of each mistake.
#include "core/vm/spec.hpp"

#include <gtest/gtest.h>

#include "core/vm/identity.hpp"

namespace hf::vm {
namespace {

std::string mistakes(const std::string& json) {
  auto spec = spec_from_json(json);
  if (spec.ok()) return "none";
  EXPECT_EQ(spec.code(), Code::invalid);
  return spec.error().what;
}

TEST(SpecJson, smallest_spec_takes_the_defaults) {
  VmSpec expected;
  expected.name = "web";
  EXPECT_EQ(*spec_from_json(R"({"name":"web"})"), expected);
  EXPECT_EQ(*spec_from_json(to_json(expected)), expected);
}

TEST(SpecJson, mistakes_carry_their_path) {
  EXPECT_EQ(
      mistakes(R"({"name":"web","datastore":"a","cpus":1,"nics":[{"mac":"x"}],
                   "disks":[{"name":"root","size_bytes":1000}]})"),
      "cpus: The key \"cpus\" is not known here. Did you mean \"vcpus\"?\n"
      "disks[0].size_bytes: The size of a disk must be a whole number of MiB.\n"
      "nics[0].network: Each nic needs the network it joins. Run \"holdfast network list\" to see those "
      "there are.\n"
      "nics[0].mac: A MAC address is six pairs of hexadecimal digits with colons, such as "
      "\"52:54:00:12:34:56\".");
  EXPECT_EQ(mistakes(R"({"name":"web","memory_mib":18446744073709551615})"),
            "memory_mib: Memory must be between 16 MiB and 16 TiB.");
  EXPECT_EQ(mistakes(R"({"name":"web","memory_mib":-1})"), "memory_mib: The number must not be negative.");
  EXPECT_EQ(mistakes(R"({"name":"web","firmware":"x"})"),
            "firmware: \"x\" is not one of \"bios\", \"uefi\".");
}

TEST(SpecJson, what_is_no_object_is_refused) {
  EXPECT_EQ(mistakes("{"), "The VM spec is not valid JSON.");
  EXPECT_EQ(mistakes("[]"), "The VM spec must be a table of keys and values.");
}

TEST(SpecJson, keys_of_a_later_version_are_passed_over) {
  EXPECT_EQ(mistakes(R"({"version":2,"name":"web","new":1,"ha":{"new":2}})"), "none");
  EXPECT_EQ(mistakes(R"({"version":0,"name":"web"})"), "version: Only version 1 of this format is known.");
  EXPECT_EQ(mistakes(R"({"version":2,"name":"web","vcpus":0})"),
            "vcpus: The number of vCPUs must be between 1 and 255.");
}

TEST(SpecJson, devices_are_counted) {
  VmSpec spec;
  spec.name = "web";
  spec.datastore = "a";
  for (int i = 0; i < 33; ++i)
    spec.disks.push_back({"d" + std::to_string(i), "", 1 << 20, DiskFormat::raw, ""});
  for (int i = 0; i < 6; ++i) spec.cdroms.push_back({"c" + std::to_string(i), "a:b"});
  for (int i = 0; i < 17; ++i) spec.nics.push_back({"n", NicModel::virtio, ""});
  EXPECT_EQ(validate(spec).error().what,
            "disks: A VM has at most 32 disks.\ncdroms: A VM has at most 5 cdroms.\nnics: A VM has at most "
            "16 nics.");
}

TEST(Identity, mac_is_local_and_made_of_the_bits) {
  EXPECT_EQ(generate_mac(0), "52:54:00:00:00:00");
  EXPECT_EQ(generate_mac(0xffff'ffff'ffab'cdef), "52:54:00:ab:cd:ef");
}

TEST(Identity, uuid_is_stable_and_well_formed) {
  const std::string uuid = uuid_of(VmId("vm-1f3a9c0e"));
  EXPECT_EQ(uuid, uuid_of(VmId("vm-1f3a9c0e")));
  EXPECT_NE(uuid, uuid_of(VmId("vm-1f3a9c0f")));
  EXPECT_EQ(uuid, "cd5bf3b2-29e0-858c-bd45-dfb7f3754e24");  // must never change: guests are licensed by it
}

}  // namespace
}  // namespace hf::vm
