#pragma once
// The ladder of CPU models that a cluster's baseline (EVC) is chosen from: for each vendor its generations, from the
// oldest. A rung has all features of the rungs below it, so "better" and "enough for" have one meaning. Versions of
// QEMU's models never change, so what a rung has is known here, whatever a host's QEMU can give of it. Pure.
//
// Which version of a model is a rung: the one without transactional memory (switched off by microcode since), and with
// the speculation controls that guests of today look for. The oldest rungs exist without those too.
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace hf::cpu {

inline constexpr std::string_view kIntel = "GenuineIntel", kAmd = "AuthenticAMD";

struct Rung {
  std::string_view model;   // as QEMU calls it, with its version: "Haswell-v4"
  std::string_view vendor;  // whose processors can be it under KVM
  std::string_view title;   // for people
  std::vector<std::string_view> adds;  // features (QEMU's names) that the rung below does not have
};

// Intel's rungs, then AMD's.
const std::vector<Rung>& ladder();
// nullptr: it is none.
const Rung* rung(std::string_view model);
// All that a guest of that model has, sorted. REQUIRES: it is a rung.
std::vector<std::string> features_of(std::string_view model);
// The rung above it, of the same vendor; nullptr: it is the highest, or none.
const Rung* above(std::string_view model);
// Is `low` below `high`, on the same vendor's side?
bool is_below(std::string_view low, std::string_view high);

// No QEMU to date emulates these, and guests do without: under TCG every rung comes without them, on every host.
const std::vector<std::string>& not_emulated();
bool is_not_emulated(std::string_view feature);

}  // namespace hf::cpu
