#include "core/cpu/ladder.hpp"

#include <algorithm>
#include <string>

namespace hf::cpu {

const std::vector<Rung>& ladder() {
  static const std::vector<Rung> kLadder = {
      {"Penryn-v1", kIntel, "Intel Penryn, 2007",
       {"apic", "clflush", "cmov", "cx16", "cx8", "de", "fpu", "fxsr", "lahf-lm", "lm", "mca", "mce", "mmx", "msr",
        "mtrr", "nx", "pae", "pat", "pge", "pni", "pse", "pse36", "sep", "sse", "sse2", "sse4.1", "ssse3", "syscall",
        "tsc"}},
      {"Nehalem-v1", kIntel, "Intel Nehalem, 2008", {"popcnt", "sse4.2"}},
      {"Westmere-v1", kIntel, "Intel Westmere, 2010", {"aes", "arat", "pclmulqdq"}},
      {"Westmere-v2", kIntel, "Intel Westmere with speculation control", {"spec-ctrl"}},
      {"SandyBridge-v2", kIntel, "Intel Sandy Bridge, 2011",
       {"avx", "rdtscp", "tsc-deadline", "x2apic", "xsave", "xsaveopt"}},
      {"IvyBridge-v2", kIntel, "Intel Ivy Bridge, 2012", {"erms", "f16c", "fsgsbase", "rdrand", "smep"}},
      {"Haswell-v4", kIntel, "Intel Haswell, 2013",
       {"abm", "avx2", "bmi1", "bmi2", "fma", "invpcid", "movbe", "pcid"}},
      {"Broadwell-v4", kIntel, "Intel Broadwell, 2014", {"3dnowprefetch", "adx", "rdseed", "smap"}},
      {"Skylake-Client-v3", kIntel, "Intel Skylake, 2015", {"xgetbv1", "xsavec"}},
      {"Skylake-Server-v3", kIntel, "Intel Xeon Skylake, 2017",
       {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl", "clwb", "pdpe1gb", "pku"}},
      {"Cascadelake-Server-v3", kIntel, "Intel Xeon Cascade Lake, 2019",
       {"arch-capabilities", "avx512vnni", "clflushopt", "ibrs-all", "mds-no", "rdctl-no", "skip-l1dfl-vmentry",
        "ssbd"}},
      {"Icelake-Server-v5", kIntel, "Intel Xeon Ice Lake, 2021",
       {"avx512-vpopcntdq", "avx512bitalg", "avx512ifma", "avx512vbmi", "avx512vbmi2", "fsrm", "gfni", "la57",
        "pschange-mc-no", "rdpid", "sha-ni", "taa-no", "umip", "vaes", "vpclmulqdq", "wbnoinvd", "xsaves"}},
      {"SapphireRapids-v1", kIntel, "Intel Xeon Sapphire Rapids, 2023",
       {"amx-bf16", "amx-int8", "amx-tile", "avx-vnni", "avx512-bf16", "avx512-fp16", "bus-lock-detect", "fsrc",
        "fsrs", "fzrm", "hle", "rtm", "serialize", "tsx-ldtrk", "xfd"}},
      {"Opteron_G3-v1", kAmd, "AMD Opteron G3, 2007",
       {"abm", "apic", "clflush", "cmov", "cx16", "cx8", "de", "fpu", "fxsr", "lahf-lm", "lm", "mca", "mce",
        "misalignsse", "mmx", "monitor", "msr", "mtrr", "nx", "pae", "pat", "pge", "pni", "popcnt", "pse", "pse36",
        "rdtscp", "sep", "sse", "sse2", "sse4a", "svm", "syscall", "tsc"}},
      {"EPYC-v2", kAmd, "AMD EPYC, 2017",
       {"3dnowprefetch", "adx", "aes", "arat", "avx", "avx2", "bmi1", "bmi2", "clflushopt", "cr8legacy", "f16c", "fma",
        "fsgsbase", "fxsr-opt", "ibpb", "mmxext", "movbe", "npt", "nrip-save", "osvw", "pclmulqdq", "pdpe1gb",
        "rdrand", "rdseed", "sha-ni", "smap", "smep", "sse4.1", "sse4.2", "ssse3", "topoext", "xgetbv1", "xsave",
        "xsavec", "xsaveopt"}},
      {"EPYC-v3", kAmd, "AMD EPYC, 2017, with all that KVM gives of it",
       {"clzero", "perfctr-core", "xsaveerptr", "xsaves"}},
      {"EPYC-Rome-v2", kAmd, "AMD EPYC Rome, 2019",
       {"amd-ssbd", "amd-stibp", "clwb", "ibrs", "rdpid", "umip", "wbnoinvd"}},
      {"EPYC-Milan-v1", kAmd, "AMD EPYC Milan, 2021",
       {"erms", "fsrm", "invpcid", "pcid", "pku", "svme-addr-chk"}},
      {"EPYC-Genoa-v1", kAmd, "AMD EPYC Genoa, 2022",
       {"amd-psfd", "auto-ibrs", "avx512-bf16", "avx512-vpopcntdq", "avx512bitalg", "avx512bw", "avx512cd", "avx512dq",
        "avx512f", "avx512ifma", "avx512vbmi", "avx512vbmi2", "avx512vl", "avx512vnni", "gfni", "la57",
        "lfence-always-serializing", "no-nested-data-bp", "null-sel-clr-base", "stibp-always-on", "vaes", "vnmi",
        "vpclmulqdq"}},
  };
  return kLadder;
}

const Rung* rung(std::string_view model) {
  for (const auto& one : ladder()) {
    if (one.model == model) return &one;
  }
  return nullptr;
}

std::vector<std::string> features_of(std::string_view model) {
  std::vector<std::string> all;
  const Rung* last = rung(model);
  for (const auto& one : ladder()) {
    if (last == nullptr || one.vendor != last->vendor) continue;
    all.insert(all.end(), one.adds.begin(), one.adds.end());
    if (one.model == model) break;
  }
  std::sort(all.begin(), all.end());
  return all;
}

const Rung* above(std::string_view model) {
  const auto& all = ladder();
  for (std::size_t at = 0; at + 1 < all.size(); ++at) {
    if (all[at].model == model) return all[at + 1].vendor == all[at].vendor ? &all[at + 1] : nullptr;
  }
  return nullptr;
}

bool is_below(std::string_view low, std::string_view high) {
  const Rung *a = rung(low), *b = rung(high);
  return a != nullptr && b != nullptr && a->vendor == b->vendor && a < b;
}

const std::vector<std::string>& not_emulated() {
  static const std::vector<std::string> kFeatures = {"invpcid", "pcid", "spec-ctrl", "tsc-deadline", "xsavec"};
  return kFeatures;
}

bool is_not_emulated(std::string_view feature) {
  return std::find(not_emulated().begin(), not_emulated().end(), feature) != not_emulated().end();
}

}  // namespace hf::cpu
