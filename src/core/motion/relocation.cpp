#include "core/motion/relocation.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "core/ha/task_end.hpp"

namespace hf::motion {
namespace {
using record::OwnerRecord;
using record::RelocationRecord;
using record::VmState;
namespace key = record::key;


bool is_owned(const ha::Stored<OwnerRecord>* owner) {
  return owner != nullptr && owner->record.phase != OwnerRecord::Phase::released;
}

bool is_alive(const RelocationQuestion& q, const HostId& host) {
  auto found = q.health.find(host);
  return found != q.health.end() && found->second.health == ha::Health::alive;
}

// Ids of the datastores that whoever copies reads and writes.
std::set<std::string> datastores_of(const RelocationQuestion& q, const vm::VmSpec& spec) {
  std::set<std::string> names = {spec.datastore, q.what.datastore}, ids;
  for (const auto& disk : spec.disks) names.insert(vm::datastore_of(disk, spec));
  for (const auto& [id, datastore] : q.view.datastores) {
    if (names.count(datastore.record.name) != 0) ids.insert(id);
  }
  return ids;
}

// Why that host cannot copy, sentences.
std::vector<std::string> obstacles_at(const RelocationQuestion& q, const vm::VmSpec& spec, const HostId& host) {
  if (!is_alive(q, host)) return {"Host " + host.text + " has no contact to the cluster."};
  std::vector<std::string> found;
  const auto& record = q.view.hosts.at(host).record;
  for (const auto& id : datastores_of(q, spec)) {
    if (record.datastores.count(id) != 0) continue;
    auto problem = record.datastore_problems.find(id);
    found.push_back(fmt::format("Datastore {} is not usable on {}{}.", q.view.datastores.at(id).record.name, host.text,
                                problem == record.datastore_problems.end() ? "" : ": " + problem->second));
  }
  return found;
}

void check_state(const RelocationQuestion& q, const record::VmRecord& vm, std::vector<std::string>& reasons) {
  const auto* owner = q.view.owner(vm.id);
  const auto* status = q.view.status_of(vm.id);
  const bool up = is_owned(owner) && owner->record.phase == OwnerRecord::Phase::claimed && status != nullptr &&
                  (status->record.state == VmState::running || status->record.state == VmState::paused) &&
                  status->record.epoch == owner->record.epoch;
  const bool off = !is_owned(owner) && vm.desired == record::Desired::stopped;
  if (!up && !off) {
    reasons.push_back(fmt::format("VM {} neither runs nor is it off: its disks can be moved when it does or is.",
                                  vm.spec.name));
  }
  if (q.view.motion(vm.id) != nullptr) {
    reasons.push_back(fmt::format("VM {} is on its way to another host.", vm.spec.name));
  }
  if (q.view.relocation(vm.id) != nullptr) {
    reasons.push_back(fmt::format("What the last move of VM {} has left is still being deleted.", vm.spec.name));
  }
  const bool home_moves = q.what.disk.empty() && vm.spec.datastore != q.what.datastore;
  if (up && home_moves && vm.spec.firmware == vm::Firmware::uefi) {
    reasons.push_back(fmt::format("VM {} has a UEFI variable store, which cannot be moved while it runs. Stop it, or "
                                  "move its disks alone: --disk.",
                                  vm.spec.name));
  }
}
}  // namespace

bool is_relocation(const record::TaskRecord& task) {
  return task.kind == record::TaskKind::vm_migrate && !task.datastore.empty() && task.to.empty();
}

vm::Relocation disks_of(const record::TaskRecord& task) {
  if (task.datastore.empty()) return {};
  return {task.datastore, task.disk_format, task.disk, task.id.text};
}

bool can_commit(const RelocationRecord& relocation, const View& view) {
  if (relocation.phase != RelocationRecord::Phase::copying) return false;
  auto vm = view.vms.find(relocation.vm);
  if (vm == view.vms.end() || vm->second.record.active_task != relocation.id) return false;
  const auto* owner = view.owner(relocation.vm);
  if (!relocation.live) return !is_owned(owner);
  return is_owned(owner) && owner->record.phase == OwnerRecord::Phase::claimed &&
         owner->record.host == relocation.host && owner->record.epoch == relocation.epoch;
}

HostId cleaner(const RelocationRecord& relocation, const View& view) {
  if (!relocation.cleaner.empty() && view.hosts.count(relocation.cleaner) != 0) return relocation.cleaner;
  const auto* owner = view.owner(relocation.vm);
  if (is_owned(owner)) return owner->record.host;
  if (view.hosts.count(relocation.host) != 0) return relocation.host;
  return view.leader ? view.leader->record.host : HostId();
}

RelocationRecord planned(const record::TaskRecord& task, const HostId& host, const View& view) {
  const auto& spec = view.vms.at(task.vm).record.spec;
  const auto* owner = view.owner(task.vm);
  RelocationRecord relocation;
  relocation.id = task.id;
  relocation.vm = task.vm;
  relocation.host = host;
  relocation.live = is_owned(owner);
  relocation.epoch = owner == nullptr ? Epoch{} : owner->record.epoch;
  relocation.what = disks_of(task);
  relocation.bandwidth_mbit = task.limits.bandwidth_mbit;
  name_files(relocation, spec);
  return relocation;
}

std::optional<TypedTxn> abandoning(const VmId& vm, const TaskId& id, const Error& why, const View& view) {
  const auto* stored = view.relocation(vm);
  if (stored == nullptr || stored->record.id != id || stored->record.phase != RelocationRecord::Phase::copying) {
    return std::nullopt;
  }
  TypedTxn txn;
  RelocationRecord abandoned = stored->record;
  abandoned.phase = RelocationRecord::Phase::abandoned;
  // safety: takes away what the commit insists on. One that was done has changed this version.
  txn.conditions.push_back({key::kRelocations + vm.text, stored->version});
  txn.writes.push_back({key::kRelocations + vm.text, abandoned, 0});
  ha::end_command(vm, id, why, view, txn);
  return txn;
}

Answer check_relocation(const RelocationQuestion& q) {
  auto found = q.view.vms.find(q.vm);
  if (found == q.view.vms.end()) return {{}, {"There is no such VM."}};
  const record::VmRecord& vm = found->second.record;
  Answer answer;
  check_state(q, vm, answer.reasons);
  const auto after = vm::relocated(vm.spec, q.what);
  if (!after.ok()) answer.reasons.push_back(after.error().what);
  const std::string unknown = why_unknown(q.what.datastore, q.view);
  if (!unknown.empty()) answer.reasons.push_back(unknown);
  const auto* owner = q.view.owner(q.vm);
  std::vector<std::string> unfit;
  for (const auto& [host, record] : q.view.hosts) {
    if (is_owned(owner) && owner->record.host != host) continue;
    const auto obstacles = obstacles_at(q, vm.spec, host);
    if (obstacles.empty() && answer.to.empty()) answer.to = host;
    unfit.insert(unfit.end(), obstacles.begin(), obstacles.end());
  }
  if (answer.to.empty()) answer.reasons.insert(answer.reasons.end(), unfit.begin(), unfit.end());
  if (!answer.reasons.empty()) answer.to = HostId();
  return answer;
}

}  // namespace hf::motion
