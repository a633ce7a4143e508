// Goal: a spec file is read exactly, all its mistakes are named at their places, and what is written is read
// back the same.
#include "core/vm/spec_toml.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include <fstream>
#include <sstream>

namespace hf::vm {
namespace {

const std::string kHead = "version = 1\nname = \"web\"\n";

std::string mistakes(const std::string& toml) {
  auto parsed = parse_spec(toml, "web.toml");
  if (parsed.ok()) return "none";
  EXPECT_EQ(parsed.code(), Code::invalid);
  return parsed.error().what;
}
// What is said of a file that begins with version and name.
std::string mistake(const std::string& more) { return mistakes(kHead + more); }

TEST(SpecToml, smallest_file_takes_the_defaults) {
  auto spec = parse_spec(kHead, "web.toml");
  ASSERT_TRUE(spec.ok()) << spec.error().what;
  VmSpec expected;
  expected.name = "web";
  EXPECT_EQ(*spec, expected);
}

TEST(SpecToml, empty_file_lacks_version_and_name) {
  EXPECT_EQ(mistakes(""),
            "web.toml:1:1: The file must say which version of this format it has. Add: version = 1\n"
            "web.toml:1:1: The VM needs a name.");
}

TEST(SpecToml, all_mistakes_are_named_at_once_and_in_order) {
  EXPECT_EQ(
      mistakes("version = 1\nname = \"Web\"\nvcpus = \"two\"\nmemory = \"512 MB\"\ndatastore = \"shared\"\n"
               "[[disks]]\n  name = \"root\"\n  sise = \"1 GiB\"\n  size = \"1.5 GiB\"\n"),
      "web.toml:2:1: A name has 1 to 63 lower-case letters, digits, \".\" and \"-\", and begins with a "
      "letter or digit.\n"
      "web.toml:3:1: This must be a whole number, not a string.\n"
      "web.toml:4:1: \"MB\" is no unit that is accepted, because MB, M and G are read as powers of 1000 by "
      "some and of "
      "1024 by others. Write a whole number and MiB, GiB or TiB, such as \"512 MiB\" or \"10 GiB\".\n"
      "web.toml:8:3: The key \"sise\" is not known here. Did you mean \"size\"?\n"
      "web.toml:9:3: \".5 GiB\" is no unit that is accepted, because MB, M and G are read as powers of 1000 "
      "by some and "
      "of 1024 by others. Write a whole number and MiB, GiB or TiB, such as \"512 MiB\" or \"10 GiB\".");
}

TEST(SpecToml, syntax_error_has_its_place) {
  EXPECT_EQ(mistakes("version = 1\nname = \n").substr(0, 34), "web.toml:2:8: This is not TOML: Er");
}

TEST(SpecToml, letters_outside_ascii_belong_into_strings) {
  EXPECT_EQ(mistakes("version = 1\nv\xc3\xa9 = 1").substr(0, 33), "web.toml:2:2: This is not TOML: E");
  EXPECT_EQ(parse_spec(kHead + "description = \"\"\"\\\n\xc2\xa7\"\"\"", "f")->description, "\xc2\xa7");
}

TEST(SpecToml, control_character_in_a_header_is_a_mistake_and_no_end) {
  EXPECT_EQ(mistakes("version = 1\n[[\x14x]]").substr(0, 32), "web.toml:2:3: This is not TOML: ");
}

TEST(SpecToml, only_the_first_twenty_mistakes_are_shown) {
  std::string toml = kHead;
  for (int i = 0; i < 30; ++i) toml += "unknown_key_" + std::to_string(i) + " = 1\n";
  std::string text = mistakes(toml);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 20);
  EXPECT_TRUE(text.ends_with("... and 10 more.")) << text;
}

TEST(SpecToml, unknown_key_suggests_the_nearest_or_lists_all) {
  EXPECT_EQ(mistake("vcpu = 2"), "web.toml:3:1: The key \"vcpu\" is not known here. Did you mean \"vcpus\"?");
  EXPECT_EQ(mistake("[[disk]]\nname=\"a\""),
            "web.toml:3:3: The key \"disk\" is not known here. Did you mean \"disks\"?");
  EXPECT_EQ(mistake("[ha]\nflavour = 1"),
            "web.toml:4:1: The key \"flavour\" is not known here. Known are: priority, max_crash_restarts.");
  EXPECT_EQ(mistake("memory_mib = 3"),
            "web.toml:3:1: The key \"memory_mib\" is not known here. Did you mean \"memory\"?");
}

TEST(SpecToml, sizes_need_a_binary_unit) {
  EXPECT_EQ(parse_spec(kHead + "memory = \"2 GiB\"", "f")->memory_mib, 2048U);
  EXPECT_EQ(parse_spec(kHead + "memory = \"1TiB\"", "f")->memory_mib, 1U << 20);
  for (const char* bad :
       {"\"512\"", "\"2G\"", "\"2 GB\"", "\"-2 GiB\"", "\" 2 GiB\"", "\"2 GiB \"", "\"2 gib\"", "\"GiB\"",
        "\"\"", "\"0 GiB\"", "\"99999999999999999999 GiB\"", "\"999999999 TiB\"", "2048", "2.5", "true",
        "1979-05-27", "[]", "\"8 MiB\"", "\"17 TiB\""}) {
    std::string text = mistake(std::string("memory = ") + bad);
    EXPECT_EQ(text.substr(0, 14), "web.toml:3:1: ") << bad << ": " << text;
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
  }
}

TEST(SpecToml, wrong_types_say_what_is_wanted) {
  EXPECT_EQ(mistake("description = 3"), "web.toml:3:1: This must be a string, not a whole number.");
  EXPECT_EQ(mistake("guest_agent = \"yes\""), "web.toml:3:1: This must be true or false, not a string.");
  EXPECT_EQ(mistake("vcpus = 1.5"),
            "web.toml:3:1: This must be a whole number, not a number with a fraction.");
  EXPECT_EQ(mistake("vcpus = 1979-05-27"), "web.toml:3:1: This must be a whole number, not a date or time.");
  EXPECT_EQ(mistake("boot_order = \"root\""), "web.toml:3:1: This must be a list of strings, not a string.");
  EXPECT_EQ(mistake("boot_order = [\n  1]"), "web.toml:4:3: This must be a string, not a whole number.");
  EXPECT_EQ(mistake("[disks]\nname = \"a\""),
            "web.toml:3:2: This must be a list of tables, each begun by [[disks]], not a table.");
  EXPECT_EQ(mistake("nics = [3]"), "web.toml:3:9: This must be a table, not a whole number.");
  EXPECT_EQ(mistake("ha = 3"), "web.toml:3:1: This must be a table, not a whole number.");
  EXPECT_EQ(mistake("firmware = \"efi\""), "web.toml:3:1: \"efi\" is not one of \"bios\", \"uefi\".");
}

TEST(SpecToml, numbers_out_of_range_are_refused) {
  for (const char* bad : {"vcpus = 0", "vcpus = 256", "vcpus = -1", "vcpus = 9223372036854775807",
                          "stop_timeout_seconds = 3601", "stop_timeout_seconds = -9223372036854775808",
                          "ha.max_crash_restarts = 101"}) {
    EXPECT_EQ(mistake(bad).substr(0, 11), "web.toml:3:") << bad;
  }
  EXPECT_EQ(mistakes("version = 2\nname = \"a\""), "web.toml:1:1: Only version 1 of this format is known.");
}

TEST(SpecToml, missing_part_is_reported_where_its_table_begins) {
  EXPECT_EQ(mistake("datastore = \"a\"\n\n[[disks]]\nname = \"root\"\n"),
            "web.toml:5:1: The disk needs a size, such as \"10 GiB\", or an image to import (import_from).");
  EXPECT_EQ(mistake("[[nics]]\nmodel = \"e1000\""),
            "web.toml:3:1: Each nic needs the network it joins. Run \"holdfast network list\" to see those "
            "there are.");
  EXPECT_EQ(
      mistake("firmware = \"uefi\""),
      "web.toml:1:1: A VM with UEFI variables needs a datastore of its own. Add: datastore = \"<name>\".");
}

TEST(SpecToml, names_and_addresses_are_unique) {
  EXPECT_EQ(mistake("datastore = \"a\"\ndisks = [{name = \"x\", size = \"1 GiB\"}]\ncdroms = [{name = \"x\", "
                    "image = \"a:b\"}]"),
            "web.toml:5:12: The name \"x\" is used twice. Disks and cdroms share one set of names.");
  EXPECT_EQ(mistake("nics = [{network = \"a\", mac = \"52:54:00:00:00:0A\"}, {network = \"a\", mac = "
                    "\"52:54:00:00:00:0a\"}]"),
            "web.toml:3:69: The MAC address 52:54:00:00:00:0a is used twice in this VM.");
}

TEST(SpecToml, bad_mac_addresses_are_refused) {
  auto said = [](const std::string& mac) {
    return mistake("[[nics]]\nnetwork = \"a\"\nmac = \"" + mac + "\"");
  };
  EXPECT_EQ(said("01:00:5e:00:00:01"),
            "web.toml:5:1: This is a multicast address, which no nic can have. Make the second digit even, "
            "such as in "
            "52:54:00:...");
  for (const char* bad : {"52:54:00:00:00", "52-54-00-00-00-01", "52:54:00:00:00:0g", "00:00:00:00:00:00",
                          "ff:ff:ff:ff:ff:ff"}) {
    EXPECT_EQ(said(bad).substr(0, 14), "web.toml:5:1: ") << bad;
  }
  EXPECT_EQ(parse_spec(kHead + "nics = [{network = \"a\", mac = \"52:54:00:AB:CD:EF\"}]", "f")->nics[0].mac,
            "52:54:00:ab:cd:ef");
}

TEST(SpecToml, boot_order_names_what_exists_once) {
  EXPECT_EQ(mistake("boot_order = [\"root\"]"),
            "web.toml:3:15: There is no disk or cdrom of this name. boot_order lists names of disks and "
            "cdroms, and \"network\".");
  EXPECT_EQ(mistake("boot_order = [\"network\"]"),
            "web.toml:3:15: The VM has no nic to boot from. Add one, or take \"network\" out.");
  EXPECT_EQ(mistake("boot_order = [\"network\", \"network\"]\nnics = [{network = \"a\"}]"),
            "web.toml:3:26: \"network\" stands twice in boot_order.");
}

TEST(SpecToml, paths_that_leave_their_place_are_refused) {
  auto image = [](const std::string& text) {
    return mistake("[[cdroms]]\nname = \"c\"\nimage = \"" + text + "\"");
  };
  EXPECT_EQ(image("iso:a,b/c d.iso"), "none");
  EXPECT_EQ(image("iso:a..b"), "none");
  EXPECT_EQ(image("iso:a/../b"), "web.toml:5:1: The path contains \"..\". Write it without.");
  EXPECT_EQ(image("iso:a\\nb"), "web.toml:5:1: The path contains a line break or a control character.");
  EXPECT_EQ(image("iso:a\\u0000b"), "web.toml:5:1: The path contains a line break or a control character.");
  for (const char* bad : {"", "iso", "iso:", ":a", "iso:/etc/passwd", "/etc/passwd", "ISO:a", "iso:..",
                          "iso:../x", "iso:x/.."}) {
    EXPECT_EQ(image(bad).substr(0, 14), "web.toml:5:1: ") << bad;
  }
  EXPECT_EQ(mistake("direct_kernel.kernel = \"/boot/../k\""),
            "web.toml:3:15: The path contains \"..\". Write it without.");
}

TEST(SpecToml, device_names_fit_a_serial_number_and_are_not_reserved) {
  auto named = [](const std::string& name) {
    return mistake("datastore = \"a\"\n[[disks]]\nsize = \"1 GiB\"\nname = \"" + name + "\"");
  };
  EXPECT_EQ(named("abcdefghij0123456789"), "none");
  EXPECT_NE(named("abcdefghij01234567890"), "none");
  EXPECT_EQ(named("cloud-init"), "web.toml:6:1: The name \"cloud-init\" is reserved. Choose another.");
  EXPECT_EQ(named("network"), "web.toml:6:1: The name \"network\" is reserved. Choose another.");
}

TEST(SpecToml, written_spec_is_read_back_the_same) {
  VmSpec spec;
  spec.name = "a.b-c";
  spec.description = "first \"line\"\n\ttabbed \\ \x01\x7f \r\n\"\"\" \xc3\xa4\n";
  spec.vcpus = 255;
  spec.memory_mib = 1536;
  spec.firmware = Firmware::uefi;
  spec.machine = "pc-q35-8.0";
  spec.cpu_model = "host";
  spec.datastore = "shared";
  spec.disks = {{"root", "", std::uint64_t{3} << 40, DiskFormat::raw, ""},
                {"b", "bulk", 0, DiskFormat::qcow2, "/a \"b\",c"}};
  spec.cdroms = {{"cd", "iso:x/y,z.iso"}};
  spec.nics = {{"vm", NicModel::e1000, ""}, {"vm", NicModel::virtio, "52:54:00:00:00:01"}};
  spec.boot_order = {"cd", "network", "root"};
  spec.direct_kernel = DirectKernel{"/k", "iso:i", "a=\"b\" c"};
  spec.cloud_init = CloudInit{"\n#cloud-config\n", "", "x"};
  spec.guest_agent = false;
  spec.stop_timeout_seconds = 0;
  spec.ha = {RestartPriority::disabled, 0};
  ASSERT_TRUE(validate(spec).ok()) << validate(spec).error().what;
  auto back = parse_spec(to_toml(spec), "f");
  ASSERT_TRUE(back.ok()) << back.error().what << "\n" << to_toml(spec);
  EXPECT_EQ(*back, spec) << to_toml(spec);
  EXPECT_EQ(*spec_from_json(to_json(spec)), spec);
}

TEST(SpecToml, every_example_of_the_manual_page_is_right) {
  std::ifstream file(HF_SOURCE_DIR "/doc/vm-spec.md");
  std::stringstream page;
  page << file.rdbuf();
  const std::string text = page.str();
  int examples = 0;
  for (std::size_t at = 0; (at = text.find("```toml\n", at)) != std::string::npos; ++examples) {
    at += 8;
    std::size_t end = text.find("```\n", at);
    ASSERT_NE(end, std::string::npos);
    auto spec = parse_spec(text.substr(at, end - at), "example");
    ASSERT_TRUE(spec.ok()) << spec.error().what;
    EXPECT_EQ(*parse_spec(to_toml(*spec), "f"), *spec);
  }
  EXPECT_EQ(examples, 3);
}

}  // namespace
}  // namespace hf::vm
