#pragma once
// EVC: the CPU baseline of a cluster, so that a VM started on any host can go on on every other. A VM that names no CPU
// model is given the baseline when it starts, and keeps that until its next start, whatever the baseline is by then. A
// host that cannot give the baseline is given no VM. Pure.
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/record/records.hpp"

namespace hf::cpu {

// QEMU's -cpu for a VM that starts now. `baseline`: the cluster's; empty: none, then it is what this release pins.
// `accelerator`: of the host.
std::string option_for(const vm::VmSpec& spec, const std::string& baseline, const std::string& accelerator);

// Why the host cannot give a guest this -cpu (or the bare model), a phrase that follows the host's name; empty: it can.
// `whose` comes before the model: "the cluster's CPU baseline".
std::string why_not(const std::string& option, const record::HostRecord& host, std::string_view whose);
// Why a guest that was started with this -cpu on `from` would not find the same on `to`; likewise. An empty option (an
// earlier version started it) is not judged.
std::string why_differs(const std::string& option, const record::HostRecord& from, const record::HostRecord& to);
// Why the host does not meet the cluster's baseline; likewise. Empty also if there is none.
std::string why_below(const record::HostRecord& host, const std::string& baseline);

// The rung that a person means: its model, or that without the version. nullptr: none.
std::string rung_named(const std::string& name);

// The highest rung that every one of the hosts can give. Under TCG alone it is one of Intel's: an emulator knows both
// vendors' models, and Intel's ladder has rungs between what the emulators of different versions can do.
// Code::unsupported: there is none, with the reason.
Result<std::string> best_for(const std::vector<const record::HostRecord*>& hosts);

struct HostStanding {
  HostId host;
  std::string why_not;              // as why_below; empty: it meets it
  std::vector<std::string> hidden;  // features of the host that guests do not see
  std::string best;                 // the highest rung it could give; empty: none
};
struct Explanation {
  std::string model;  // empty: there is no baseline
  std::string title;
  bool automatic = false;
  std::string best;                    // what `auto` would choose now; empty: nothing
  std::string next;                    // the rung above the baseline (without one: above `best`); empty: there is none
  std::vector<std::string> forced_by;  // who cannot give `next`, and why, a sentence each
  std::vector<HostStanding> hosts;
};
Explanation explain(const record::ClusterRecord& cluster, const std::vector<const record::HostRecord*>& hosts);

}  // namespace hf::cpu
