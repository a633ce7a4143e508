// Goal: the ladder is what QEMU's models are, and the baseline is refused, chosen and explained as a person expects.
// Method: real answers of QEMU 7.2 and 10.0 under TCG, recorded in tests/golden/cpu; under KVM, hosts on paper.
#include "core/cpu/evc.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/cpu/ladder.hpp"
#include "core/cpu/report.hpp"
#include "core/vm/qemu_command.hpp"

namespace hf::cpu {
namespace {
using nlohmann::json;
using record::HostRecord;
using Names = std::vector<std::string>;

json recorded(const std::string& version) {
  std::ifstream file(std::string(HF_SOURCE_DIR) + "/tests/golden/cpu/qemu-" + version + ".json");
  return json::parse(file);
}

HostRecord emulated(const std::string& name, const std::string& version) {
  const json answer = recorded(version);
  HostRecord host;
  host.host = HostId(name);
  host.accelerator = "tcg";
  host.cpu = *read_answers({answer.at("definitions").dump(), answer.at("everything").dump()}, "tcg",
                           {"AuthenticAMD", "AMD EPYC"});
  return host;
}

// A host under KVM that can be any rung of its vendor up to `best`.
HostRecord on_kvm(const std::string& name, std::string_view vendor, const std::string& best) {
  HostRecord host;
  host.host = HostId(name);
  host.accelerator = "kvm";
  host.cpu.vendor = vendor;
  host.cpu.features = features_of(best);
  for (const auto& one : ladder()) {
    if (one.vendor != vendor) continue;
    const Names wanted = features_of(one.model);
    std::set_difference(wanted.begin(), wanted.end(), host.cpu.features.begin(), host.cpu.features.end(),
                        std::back_inserter(host.cpu.rungs[std::string(one.model)]));
  }
  return host;
}

bool has(const Names& all, const std::string& one) { return std::find(all.begin(), all.end(), one) != all.end(); }

class Ladder : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Qemu, Ladder, ::testing::Values("7.2", "10.0"));

TEST_P(Ladder, each_rung_has_the_features_of_the_model_in_qemu) {
  const json answer = recorded(GetParam());
  for (const auto& definition : answer.at("definitions")) {
    const auto model = definition.at("name").get<std::string>();
    if (rung(model) == nullptr) continue;
    const auto given = answer.at("rungs").at(model).get<Names>();
    const auto lacks = definition.at("unavailable-features").get<Names>();
    for (const auto& feature : features_of(model)) EXPECT_TRUE(has(given, feature)) << model << ": " << feature;
    for (const auto& feature : lacks) EXPECT_TRUE(has(features_of(model), feature)) << model << ": " << feature;
    for (const auto& one : ladder()) {
      for (const auto& feature : one.adds) {
        if (!has(given, std::string(feature))) continue;
        EXPECT_TRUE(has(features_of(model), std::string(feature))) << model << " has " << feature << " as well";
      }
    }
  }
}

TEST(Ladder, no_feature_comes_twice_and_higher_rungs_have_all_of_the_lower) {
  for (const auto& one : ladder()) {
    const Names all = features_of(one.model);
    EXPECT_EQ(std::adjacent_find(all.begin(), all.end()), all.end()) << one.model;
  }
  EXPECT_TRUE(is_below("Westmere-v2", "Haswell-v4"));
  EXPECT_FALSE(is_below("Haswell-v4", "Westmere-v2"));
  EXPECT_FALSE(is_below("Westmere-v2", "EPYC-v2"));
  EXPECT_EQ(above("SapphireRapids-v1"), nullptr);
  EXPECT_EQ(above("EPYC-Genoa-v1"), nullptr);
}

TEST(Report, keeps_what_the_ladder_needs_and_stays_small) {
  const HostRecord host = emulated("host1", "10.0");
  EXPECT_EQ(host.cpu.vendor, "");
  EXPECT_EQ(host.cpu.name, "AMD EPYC");
  EXPECT_TRUE(has(host.cpu.runs, "qemu64-v1"));
  EXPECT_FALSE(has(host.cpu.runs, "qemu64"));
  EXPECT_TRUE(host.cpu.rungs.at("Skylake-Client-v3").empty()) << "what no emulator has does not count";
  EXPECT_TRUE(has(host.cpu.rungs.at("Skylake-Server-v3"), "avx512f"));
  EXPECT_TRUE(has(host.cpu.features, "avx2"));
  EXPECT_LT(record::encode(host).size(), 4096u);
}

TEST(Report, refuses_what_is_no_answer) {
  EXPECT_EQ(read_answers({"{}", "[]"}, "tcg", {}).code(), Code::corrupt);
  EXPECT_EQ(read_answers({"", ""}, "tcg", {}).code(), Code::corrupt);
}

TEST(Report, reads_the_first_processor) {
  const auto found = processor_in("processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Xeon\n\nprocessor\t: 1\n");
  EXPECT_EQ(found.vendor, "GenuineIntel");
  EXPECT_EQ(found.name, "Xeon");
}

TEST(Evc, a_vm_without_a_model_gets_the_baseline_and_under_tcg_what_all_emulators_have_of_it) {
  EXPECT_EQ(option_for({}, "", "tcg"), vm::kPinnedCpu);
  EXPECT_EQ(option_for({}, "Haswell-v4", "kvm"), "Haswell-v4,enforce=on");
  EXPECT_EQ(option_for({}, "Westmere-v2", "tcg"), "Westmere-v2,enforce=on,spec-ctrl=off");
  vm::VmSpec own;
  own.cpu_model = "Nehalem-v1";
  EXPECT_EQ(option_for(own, "Haswell-v4", "kvm"), "Nehalem-v1");
}

TEST(Evc, the_best_of_old_and_new_emulators_is_forced_by_the_old_one) {
  const HostRecord old = emulated("host1", "7.2"), young = emulated("host2", "10.0");
  EXPECT_EQ(*best_for({&young}), "Skylake-Client-v3");
  EXPECT_EQ(*best_for({&old}), "Westmere-v2");
  EXPECT_EQ(*best_for({&old, &young}), "Westmere-v2");
  record::ClusterRecord cluster;
  cluster.evc = "Westmere-v2";
  cluster.evc_auto = true;
  const Explanation told = explain(cluster, {&old, &young});
  EXPECT_EQ(told.next, "SandyBridge-v2");
  EXPECT_EQ(told.forced_by, Names{"host1 lacks x2apic of its successor SandyBridge-v2."});
  EXPECT_TRUE(has(told.hosts.at(1).hidden, "avx2"));
  EXPECT_FALSE(has(told.hosts.at(1).hidden, "aes")) << "the baseline has it";
  EXPECT_EQ(told.hosts.at(1).best, "Skylake-Client-v3");
}

TEST(Evc, a_host_below_the_baseline_says_what_it_lacks) {
  EXPECT_EQ(why_below(emulated("host1", "7.2"), "SandyBridge-v2"),
            "lacks x2apic of the cluster's CPU baseline SandyBridge-v2");
  EXPECT_EQ(why_below(emulated("host2", "10.0"), "SandyBridge-v2"), "");
  EXPECT_EQ(why_below(emulated("host1", "7.2"), "SapphireRapids-v1"),
            "has a QEMU that does not know the cluster's CPU baseline SapphireRapids-v1");
  EXPECT_EQ(why_below(on_kvm("a", kAmd, "EPYC-v2"), "Westmere-v2"),
            "has a processor of AuthenticAMD, the cluster's CPU baseline Westmere-v2 is one of GenuineIntel");
  EXPECT_EQ(why_below(HostRecord{}, ""), "");
  EXPECT_NE(why_below(HostRecord{}, "Westmere-v2"), "") << "a host that says nothing is not trusted to have it";
}

TEST(Evc, processors_of_two_vendors_have_no_baseline) {
  const HostRecord a = on_kvm("a", kIntel, "Haswell-v4"), b = on_kvm("b", kAmd, "EPYC-Rome-v2");
  EXPECT_EQ(*best_for({&a}), "Haswell-v4");
  EXPECT_EQ(*best_for({&b}), "EPYC-Rome-v2");
  const auto none = best_for({&a, &b});
  ASSERT_FALSE(none.ok());
  EXPECT_NE(none.error().what.find("a has one of GenuineIntel, b has one of AuthenticAMD"), std::string::npos);
}

TEST(Evc, people_name_rungs_with_or_without_version) {
  EXPECT_EQ(rung_named("Haswell"), "Haswell-v4");
  EXPECT_EQ(rung_named("Westmere"), "Westmere-v2");
  EXPECT_EQ(rung_named("Westmere-v1"), "Westmere-v1");
  EXPECT_EQ(rung_named("Haswell-v1"), "");
  EXPECT_EQ(rung_named(""), "");
}

TEST(Differs, a_guest_moves_where_its_cpu_can_be_given) {
  const HostRecord old = emulated("host1", "7.2"), young = emulated("host2", "10.0");
  EXPECT_EQ(why_differs(vm::kPinnedCpu, old, young), "");
  EXPECT_EQ(why_differs(vm::kPinnedCpu, young, old), "");
  EXPECT_EQ(why_differs(option_for({}, "Haswell-v4", "tcg"), young, old), "lacks x2apic of the VM's CPU Haswell-v4");
  EXPECT_EQ(why_differs("Nehalem-v1", old, young), "");
  EXPECT_EQ(why_differs("coreduo", old, young), "") << "the version that the pinned machine gives it";
}

TEST(Differs, a_model_that_neither_host_has_whole_moves_if_both_lack_the_same) {
  const HostRecord old = emulated("host1", "7.2"), young = emulated("host2", "10.0");
  EXPECT_EQ(why_differs("EPYC-v2", old, old), "");
  EXPECT_NE(why_differs("EPYC-v2", old, young), "");
}

TEST(Differs, a_guest_that_sees_all_of_its_host_moves_to_its_equal_only) {
  const HostRecord a = on_kvm("a", kIntel, "Haswell-v4"), b = on_kvm("b", kIntel, "Broadwell-v4");
  EXPECT_EQ(why_differs("host", a, a), "");
  EXPECT_EQ(why_differs("host", a, b),
            "has another processor than a, and the VM sees all of it (its CPU model is host)");
}

TEST(Differs, another_vendor_is_refused_whatever_the_model) {
  const HostRecord a = on_kvm("a", kIntel, "Haswell-v4");
  HostRecord b = on_kvm("b", kAmd, "EPYC-Rome-v2");
  EXPECT_NE(why_differs(option_for({}, "Westmere-v2", "kvm"), a, b), "");
  b.cpu.runs = {"qemu64-v1"};
  EXPECT_NE(why_differs(vm::kPinnedCpu, a, b), "");
}

TEST(Differs, a_host_of_an_earlier_version_gets_what_it_always_could) {
  const HostRecord young = emulated("host2", "10.0");
  EXPECT_EQ(why_differs(vm::kPinnedCpu, young, {}), "");
  EXPECT_EQ(why_differs("Nehalem-v1", young, {}), "");
  EXPECT_NE(why_differs(option_for({}, "Haswell-v4", "tcg"), young, {}), "");
  EXPECT_EQ(why_differs("", {}, young), "");
}

}  // namespace
}  // namespace hf::cpu
