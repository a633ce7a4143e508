#include "core/cpu/evc.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <sstream>

#include "core/cpu/ladder.hpp"
#include "core/vm/qemu_command.hpp"

namespace hf::cpu {
namespace {
using record::HostRecord;

constexpr std::string_view kLowest = "Penryn-v1";

// What stands in a -cpu: the model, and what is added to it and taken from it.
struct Option {
  std::string model;
  std::set<std::string> with, without;
};

Option parse(const std::string& text) {
  Option option;
  std::istringstream words(text);
  std::getline(words, option.model, ',');
  for (std::string word; std::getline(words, word, ',');) {
    const auto equals = word.find('=');
    const std::string value = equals == std::string::npos ? "" : word.substr(equals + 1);
    if (word.starts_with('+')) option.with.insert(word.substr(1));
    else if (word.starts_with('-')) option.without.insert(word.substr(1));
    else if (value == "off") option.without.insert(word.substr(0, equals));
  }
  return option;
}

bool contains(const std::vector<std::string>& all, const std::string& one) {
  return std::find(all.begin(), all.end(), one) != all.end();
}

bool is_as_is(const std::string& model) { return model == "host" || model == "max"; }

// Features that a guest of this -cpu would not have on that host. nullopt: its QEMU does not say, or has no such model.
std::optional<std::vector<std::string>> lacking(const Option& option, const HostRecord& host) {
  std::vector<std::string> lacks;
  if (auto found = host.cpu.rungs.find(option.model); found != host.cpu.rungs.end()) {
    for (const auto& feature : found->second) {
      if (!option.without.contains(feature)) lacks.push_back(feature);
    }
  } else if (!contains(host.cpu.runs, option.model) && !contains(host.cpu.runs, option.model + "-v1")) {
    return std::nullopt;
  }
  for (const auto& feature : option.with) {
    if (!contains(host.cpu.features, feature)) lacks.push_back(feature);
  }
  return lacks;
}

std::string vendor_of(const HostRecord& host) {
  return host.cpu.vendor.empty() ? "an unknown vendor" : host.cpu.vendor;
}

}  // namespace

std::string option_for(const vm::VmSpec& spec, const std::string& baseline, const std::string& accelerator) {
  if (!spec.cpu_model.empty()) return spec.cpu_model;
  if (baseline.empty()) return vm::kPinnedCpu;
  // enforce: a host that lacks a feature refuses the VM, instead of giving it another CPU than the next host will.
  std::string option = baseline + ",enforce=on";
  if (accelerator != "tcg") return option;
  for (const auto& feature : features_of(baseline)) {
    if (is_not_emulated(feature)) option += "," + feature + "=off";
  }
  return option;
}

std::string why_not(const std::string& text, const HostRecord& host, std::string_view whose) {
  if (!host.cpu.known()) {
    return "does not say what its processor can give (its version of Holdfast is older, or its QEMU did not answer)";
  }
  const Option option = parse(text);
  if (is_as_is(option.model)) return {};
  const Rung* known = rung(option.model);
  if (known != nullptr && host.accelerator == "kvm" && known->vendor != host.cpu.vendor) {
    return fmt::format("has a processor of {}, {} {} is one of {}", vendor_of(host), whose, option.model,
                       known->vendor);
  }
  const auto lacks = lacking(option, host);
  if (!lacks && known != nullptr) return fmt::format("has a QEMU that does not know {} {}", whose, option.model);
  if (!lacks) return fmt::format("cannot give all of {} {}", whose, option.model);
  if (lacks->empty()) return {};
  return fmt::format("lacks {} of {} {}", fmt::join(*lacks, ", "), whose, option.model);
}

std::string why_differs(const std::string& text, const HostRecord& from, const HostRecord& to) {
  if (text.empty()) return {};
  const Option option = parse(text);
  // What every version before the baselines gave as well.
  const bool as_ever = text == vm::kPinnedCpu || text.find(',') == std::string::npos;
  if (!to.cpu.known() && as_ever) return {};
  const std::string why = why_not(text, to, "the VM's CPU");
  if (!to.cpu.known() || !from.cpu.known()) return why;
  if (is_as_is(option.model)) {
    const bool same = from.cpu.vendor == to.cpu.vendor && from.cpu.features == to.cpu.features;
    if (same) return {};
    return fmt::format("has another processor than {}, and the VM sees all of it (its CPU model is {})", from.host.text,
                       option.model);
  }
  // A model that was asked for by name is given as far as it goes: as far as on the other host, then.
  if (!why.empty() && lacking(option, from) == lacking(option, to) && lacking(option, from) &&
      from.cpu.vendor == to.cpu.vendor) {
    return {};
  }
  if (why.empty() && from.cpu.vendor != to.cpu.vendor) {
    return fmt::format("has a processor of {}, {} one of {}", vendor_of(to), from.host.text, vendor_of(from));
  }
  return why;
}

std::string why_below(const HostRecord& host, const std::string& baseline) {
  return baseline.empty() ? std::string() : why_not(option_for({}, baseline, host.accelerator), host,
                                                    "the cluster's CPU baseline");
}

std::string rung_named(const std::string& name) {
  std::string found;
  for (const auto& one : ladder()) {
    if (one.model == name) return name;
    if (one.model.substr(0, one.model.rfind("-v")) == name) found = one.model;
  }
  return found;
}

Result<std::string> best_for(const std::vector<const HostRecord*>& hosts) {
  std::set<std::string> vendors;
  std::string who;
  for (const auto* host : hosts) {
    if (const std::string why = why_below(*host, std::string(kLowest)); !host->cpu.known()) {
      return Error{Code::unsupported, host->host.text + " " + why + "."};
    }
    if (host->accelerator != "kvm") continue;
    vendors.insert(host->cpu.vendor);
    who += fmt::format("{}{} has one of {}", who.empty() ? "" : ", ", host->host.text, vendor_of(*host));
  }
  if (vendors.size() > 1) {
    return Error{Code::unsupported, "The hosts have processors of different vendors, which no baseline makes alike: " +
                                        who + "."};
  }
  const std::string vendor = vendors.empty() ? std::string(kIntel) : *vendors.begin();
  std::string best, obstacle;
  for (const auto& one : ladder()) {
    if (one.vendor != vendor || !obstacle.empty()) continue;
    for (const auto* host : hosts) {
      const std::string why = why_below(*host, std::string(one.model));
      if (!why.empty()) obstacle = host->host.text + " " + why + ".";
    }
    if (obstacle.empty()) best = one.model;
  }
  if (!best.empty()) return best;
  return Error{Code::unsupported, "There is no CPU baseline that every host can give" +
                                      (obstacle.empty() ? " for processors of " + vendor + "." : ": " + obstacle)};
}

Explanation explain(const record::ClusterRecord& cluster, const std::vector<const HostRecord*>& hosts) {
  Explanation told;
  told.model = cluster.evc;
  told.automatic = cluster.evc_auto;
  if (const Rung* known = rung(cluster.evc)) told.title = known->title;
  if (const auto best = best_for(hosts); best.ok() && !hosts.empty()) told.best = *best;
  if (const Rung* next = above(told.model.empty() ? told.best : told.model)) told.next = next->model;
  const auto seen = told.model.empty() ? std::vector<std::string>() : features_of(told.model);
  for (const auto* host : hosts) {
    HostStanding standing{host->host, why_below(*host, told.model), {}, {}};
    for (const auto& feature : host->cpu.features) {
      if (!told.model.empty() && !std::binary_search(seen.begin(), seen.end(), feature))
        standing.hidden.push_back(feature);
    }
    if (const auto best = best_for({host}); best.ok()) standing.best = *best;
    std::string why;
    if (!told.next.empty()) why = why_not(option_for({}, told.next, host->accelerator), *host, "its successor");
    if (!why.empty()) told.forced_by.push_back(fmt::format("{} {}.", host->host.text, why));
    told.hosts.push_back(std::move(standing));
  }
  return told;
}

}  // namespace hf::cpu
