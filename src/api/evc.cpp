// The operation that sets the cluster's CPU baseline, and what may be used in a cluster of two versions.
#include <fmt/format.h>

#include "api/operations.hpp"
#include "core/cpu/ladder.hpp"

namespace hf::api {
namespace key = record::key;
using record::ClusterRecord;
using record::HostRecord;

namespace {
Error no_such_rung(const std::string& wanted) {
  std::string known;
  for (const auto& one : cpu::ladder()) known += fmt::format("{}{}", known.empty() ? "" : ", ", one.model);
  return {Code::invalid,
          fmt::format("\"{}\" is no CPU baseline. Say auto, off or one of {}.", wanted.substr(0, 80), known)};
}
}  // namespace

Status Operations::require_level(const ClusterRecord& cluster, int level) {
  if (cluster.level >= level) return {};
  TRY_ASSIGN(const auto hosts, read_all<HostRecord>(store_, key::kHosts));
  std::string old;
  for (const auto& host : hosts) {
    if (host.record.level < level) old += (old.empty() ? "" : ", ") + host.record.host.text;
  }
  if (old.empty()) {
    return Error{Code::conflict, "The cluster has just become able to do this: try again in a few seconds."};
  }
  return Error{Code::unsupported, fmt::format("This needs a later version of Holdfast on {}. Upgrade every host first "
                                              "(doc/upgrade.md).", old)};
}

Result<Txn> Operations::plan_evc(const std::string& wanted) {
  TRY_ASSIGN(const auto found, read<ClusterRecord>(store_, key::kCluster));
  TRY(require_level(found.record, 2));
  ClusterRecord changed = found.record;
  changed.evc_auto = wanted == "auto";
  changed.evc = wanted == "off" || wanted == "auto" ? "" : cpu::rung_named(wanted);
  if (changed.evc.empty() && wanted != "off" && wanted != "auto") return no_such_rung(wanted);
  TRY_ASSIGN(const auto hosts, read_all<HostRecord>(store_, key::kHosts));
  std::vector<const HostRecord*> all;
  for (const auto& host : hosts) all.push_back(&host.record);
  if (changed.evc_auto) {
    TRY_ASSIGN(changed.evc, cpu::best_for(all));
  }
  std::string why;
  for (const auto* host : all) {
    const std::string below = cpu::why_below(*host, changed.evc);
    if (!below.empty()) why += fmt::format("{}{} {}.", why.empty() ? "" : "\n", host->host.text, below);
  }
  if (!why.empty()) return Error{Code::unsupported, why};
  if (changed == found.record) return Txn{};
  return Txn{{{found.key, found.version}}, {{found.key, record::encode(changed), {}, false}}};
}

Result<EvcView> Operations::set_evc(const std::string& wanted) {
  TRY(run_write("The cluster's CPU baseline", [&] { return plan_evc(wanted); }));
  return show_evc(store_);
}

}  // namespace hf::api
