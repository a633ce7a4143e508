#include "core/placement/placement.hpp"

#include <fmt/format.h>

namespace hf::placement {
namespace {

constexpr std::size_t kObstaclesShown = 8;

std::string first_missing(const std::set<std::string>& wanted, const auto& has) {
  for (const auto& name : wanted) {
    if (!has(name)) return name;
  }
  return {};
}

// Larger is better.
double free_share(const Candidate& candidate, const Need& need) {
  const auto total = static_cast<double>(candidate.host->memory_mib);
  return (total - static_cast<double>(candidate.used_mib + need.memory_mib)) / total;
}

bool better(const Candidate& a, const Candidate& b, const Need& need) {
  const double share_a = free_share(a, need), share_b = free_share(b, need);
  if (share_a != share_b) return share_a > share_b;
  if (a.vms != b.vms) return a.vms < b.vms;
  return a.host->host < b.host->host;
}

std::string datastore_id(const std::string& name, const std::map<std::string, std::string>& ids) {
  auto found = ids.find(name);
  return found == ids.end() ? name : found->second;
}

}  // namespace

Need need_of(const record::VmRecord& vm, const std::map<std::string, std::string>& datastore_ids) {
  Need need;
  need.memory_mib = vm.spec.memory_mib;
  need.vcpus = vm.spec.vcpus;
  need.pinned_host = vm.pinned_host;
  auto add = [&](const std::string& name) {
    if (!name.empty()) need.datastores.insert(datastore_id(name, datastore_ids));
  };
  add(vm.spec.datastore);
  for (const auto& disk : vm.spec.disks) add(disk.datastore);
  for (const auto& cdrom : vm.spec.cdroms) add(cdrom.image.substr(0, cdrom.image.find(':')));
  for (const auto& nic : vm.spec.nics) need.networks.insert(nic.network);
  return need;
}

std::string obstacle(const Candidate& candidate, const Need& need) {
  const auto& host = *candidate.host;
  if (!need.pinned_host.empty() && need.pinned_host != host.host.text) return "is not the host that was asked for";
  if (need.excluded.count(host.host.text) != 0) return "failed to start it";
  if (candidate.used_mib + need.memory_mib > host.memory_mib) {
    const std::uint64_t left = host.memory_mib > candidate.used_mib ? host.memory_mib - candidate.used_mib : 0;
    return fmt::format("has {} of {} MiB free", left, host.memory_mib);
  }
  auto datastore = first_missing(need.datastores, [&](const auto& id) { return host.datastores.count(id) != 0; });
  if (!datastore.empty()) return fmt::format("does not see datastore {}", datastore);
  auto network = first_missing(need.networks, [&](const auto& name) {
    return std::find(host.networks.begin(), host.networks.end(), name) != host.networks.end();
  });
  if (!network.empty()) return fmt::format("does not have network {}", network);
  return {};
}

Result<HostId> choose(const std::vector<Candidate>& candidates, const Need& need) {
  const Candidate* best = nullptr;
  for (const auto& candidate : candidates) {
    if (!obstacle(candidate, need).empty()) continue;
    if (best == nullptr || better(candidate, *best, need)) best = &candidate;
  }
  if (best != nullptr) return best->host->host;
  std::string text = fmt::format("No host can take a VM of {} MiB", need.memory_mib);
  std::size_t shown = 0;
  for (const auto& candidate : candidates) {
    if (++shown > kObstaclesShown) break;
    text += fmt::format("{} {} {}", shown == 1 ? ":" : ",", candidate.host->host.text, obstacle(candidate, need));
  }
  if (candidates.size() > kObstaclesShown) text += fmt::format(", and {} more", candidates.size() - kObstaclesShown);
  return Error{Code::no_room, text + "."};
}

}  // namespace hf::placement
