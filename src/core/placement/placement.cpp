#include "core/placement/placement.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace hf::placement {
namespace {

constexpr std::size_t kObstaclesShown = 8;

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

std::vector<std::string> obstacles(const Candidate& candidate, const Need& need) {
  const auto& host = *candidate.host;
  std::vector<std::string> found;
  if (!candidate.closed.empty()) found.push_back(candidate.closed);
  if (!need.pinned_host.empty() && need.pinned_host != host.host.text) {
    found.emplace_back("is not the host that was asked for");
  }
  if (need.excluded.count(host.host.text) != 0) found.emplace_back("failed to start it");
  if (candidate.used_mib + need.memory_mib > host.memory_mib) {
    const std::uint64_t left = host.memory_mib > candidate.used_mib ? host.memory_mib - candidate.used_mib : 0;
    found.push_back(fmt::format("has {} of {} MiB free", left, host.memory_mib));
  }
  for (const auto& id : need.datastores) {
    if (host.datastores.count(id) == 0) found.push_back(fmt::format("does not see datastore {}", id));
  }
  for (const auto& name : need.networks) {
    const bool has = std::find(host.networks.begin(), host.networks.end(), name) != host.networks.end();
    if (!has) found.push_back(fmt::format("does not have network {}", name));
  }
  return found;
}

Result<HostId> choose(const std::vector<Candidate>& candidates, const Need& need) {
  const Candidate* best = nullptr;
  for (const auto& candidate : candidates) {
    if (!obstacles(candidate, need).empty()) continue;
    if (best == nullptr || better(candidate, *best, need)) best = &candidate;
  }
  if (best != nullptr) return best->host->host;
  std::string text = fmt::format("No host can take a VM of {} MiB", need.memory_mib);
  std::size_t shown = 0;
  for (const auto& candidate : candidates) {
    if (++shown > kObstaclesShown) break;
    text += fmt::format("{} {} {}", shown == 1 ? ":" : ",", candidate.host->host.text,
                        obstacles(candidate, need).front());
  }
  if (candidates.size() > kObstaclesShown) text += fmt::format(", and {} more", candidates.size() - kObstaclesShown);
  return Error{Code::no_room, text + "."};
}

}  // namespace hf::placement
