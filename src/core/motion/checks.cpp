#include "core/motion/checks.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "core/cpu/evc.hpp"

namespace hf::motion {
namespace {
using record::OwnerRecord;
using record::VmState;

const std::string kMaintenanceOf = "maintenance of ";

std::vector<int> numbers_of(const std::string& version) {
  std::vector<int> numbers = {0};
  for (const char c : version) {
    if (c == '.') numbers.push_back(0);
    else if (c >= '0' && c <= '9') numbers.back() = numbers.back() * 10 + (c - '0');
    else break;
  }
  return numbers;
}

// As the hypervisor wrote it in the VM's status (sys/qemu/shim_client.hpp, describe_tracking): it says "none: " and why
// where nobody but QEMU can read the guest's memory. Empty: nothing is known against it.
const std::string kNoTracker = "none";

// Its firmware keeps its variables in memory of its own, beside the guest's RAM, which only QEMU carries.
bool has_variable_flash(const Question& q) {
  const auto vm = q.view.vms.find(q.vm);
  return vm != q.view.vms.end() && vm->second.record.spec.firmware == vm::Firmware::uefi;
}

record::Engine decided(const Question& q) {
  if (q.engine != record::Engine::automatic) return q.engine;
  const auto* status = q.view.status_of(q.vm);
  const bool unreadable = status != nullptr && status->record.memory_tracker.starts_with(kNoTracker);
  return unreadable || has_variable_flash(q) ? record::Engine::qemu : record::Engine::holdfast;
}

constexpr int kEnginesSinceLevel = 2;

// safety: an emulating QEMU before 9.0 does not see some of what its guest writes while it migrates (measured with 7.2:
// wrong pages at the destination), so that a guest moved so would go on with damaged memory.
constexpr int kOwnMigrationSince = 9;
bool loses_writes(const record::HostRecord& host) {
  return host.accelerator == "tcg" && numbers_of(host.qemu_version).front() < kOwnMigrationSince;
}

ha::Health health_of(const Question& q, const HostId& host) {
  auto found = q.health.find(host);
  return found == q.health.end() ? ha::Health::unknown : found->second.health;
}

// The spec that the other host would run.
Result<vm::VmSpec> spec_there(const Question& q, const vm::VmSpec& spec) {
  if (q.disks.datastore.empty()) return spec;
  return vm::relocated(spec, q.disks);
}

void check_disks(const Question& q, const record::VmRecord& vm, std::vector<std::string>& reasons) {
  if (const auto* relocation = q.view.relocation(vm.id)) {
    // What another host still deletes is in nobody's way, but for the record that tells of it.
    const bool elsewhere = !relocation->record.cleaner.empty() && q.disks.datastore.empty();
    if (!elsewhere) {
      reasons.push_back(fmt::format("The disks of VM {} move, or what their move has left is being deleted.",
                                    vm.spec.name));
    }
  }
  if (q.disks.datastore.empty()) return;
  const auto after = spec_there(q, vm.spec);
  if (!after.ok()) reasons.push_back(after.error().what);
  for (const auto& disk : after.ok() ? after->disks : std::vector<vm::Disk>{}) {
    if (disk.tag != q.disks.tag || disk.size_bytes > 0) continue;
    reasons.push_back(fmt::format("The spec of VM {} does not say how large disk {} is, which was imported by an "
                                  "earlier version: `holdfast vm resize` writes it, while the VM is off.",
                                  vm.spec.name, disk.name));
  }
  if (decided(q) == record::Engine::qemu) {
    reasons.push_back(fmt::format("QEMU's own migration does not take the disks of VM {} along: move the disks first "
                                  "(--datastore without --to), then the VM.", vm.spec.name));
  }
  const std::string unknown = why_unknown(q.disks.datastore, q.view);
  if (!unknown.empty()) reasons.push_back(unknown);
}

// Names of the datastores of that spec that are not shared, but for where its disks go.
std::set<std::string> local_datastores(const Question& q, const vm::VmSpec& spec) {
  std::set<std::string> used = {spec.datastore}, local;
  for (const auto& disk : spec.disks) used.insert(disk.datastore);
  for (const auto& cdrom : spec.cdroms) used.insert(cdrom.image.substr(0, cdrom.image.find(':')));
  used.erase(q.disks.datastore);
  for (const auto& [id, datastore] : q.view.datastores) {
    if (!datastore.record.shared && used.count(datastore.record.name) != 0) local.insert(datastore.record.name);
  }
  return local;
}

void check_vm(const Question& q, const record::VmRecord& vm, std::vector<std::string>& reasons) {
  const auto* owner = q.view.owner(vm.id);
  const auto* status = q.view.status_of(vm.id);
  const std::string& name = vm.spec.name;
  const bool owned = owner != nullptr && owner->record.phase == OwnerRecord::Phase::claimed;
  const bool up = owned && status != nullptr && status->record.state == VmState::running &&
                  status->record.epoch == owner->record.epoch;
  const bool paused = owned && status != nullptr && status->record.state == VmState::paused &&
                      status->record.epoch == owner->record.epoch;
  if (paused) {
    reasons.push_back(fmt::format("VM {} is paused by a disk error and can move once that is mended: {}", name,
                                  status->record.message));
  } else if (!up) {
    reasons.push_back(fmt::format("VM {} does not run now; only a running VM can be moved so.", name));
  }
  if (owned && owner->record.generation != 0 && vm.hardware > owner->record.generation) {
    reasons.push_back(fmt::format("VM {} was edited since it was started, and the other host would give it the new "
                                  "hardware. Stop and start it first.", name));
  }
  if (owned && health_of(q, owner->record.host) != ha::Health::alive) {
    reasons.push_back(fmt::format("Host {}, where VM {} is, has no contact to the cluster.", owner->record.host.text,
                                  name));
  }
  if (const auto* motion = q.view.motion(vm.id)) {
    reasons.push_back(fmt::format("VM {} is on its way from {} to {} already.", name, motion->record.from.text,
                                  motion->record.to.text));
  }
  const auto host = owned ? q.view.hosts.find(owner->record.host) : q.view.hosts.end();
  const bool by_qemu = decided(q) == record::Engine::qemu;
  if (!by_qemu && has_variable_flash(q)) {
    reasons.push_back(fmt::format("VM {} boots by UEFI, and Holdfast's engine does not carry the memory of its "
                                  "firmware's variables (QEMU's system.flash1); QEMU's own migration does.", name));
  }
  const bool must_be_qemu = q.engine == record::Engine::automatic && has_variable_flash(q);
  const std::string because =
      must_be_qemu ? fmt::format("VM {} boots by UEFI, so QEMU's own migration has to move it. ", name) : "";
  // safety: a host of an earlier version would not read the record's word, and take the engine.
  if (by_qemu && q.view.cluster && q.view.cluster->record.level < kEnginesSinceLevel) {
    reasons.push_back(because + "Not every host's version of Holdfast can use QEMU's own migration. Upgrade every host "
                                "first (doc/upgrade.md).");
  }
  if (by_qemu && host != q.view.hosts.end() && loses_writes(host->second.record)) {
    reasons.push_back(fmt::format("{}{} has QEMU {}: QEMU's own migration loses what an emulated guest writes before "
                                  "version {}.0.", because, host->first.text, host->second.record.qemu_version,
                                  kOwnMigrationSince));
  }
  if (status != nullptr && !by_qemu && status->record.memory_tracker.starts_with(kNoTracker)) {
    reasons.push_back(fmt::format("Holdfast's engine cannot read the memory of VM {} ({}); QEMU's own migration may "
                                  "move it.", name, status->record.memory_tracker));
  }
  check_disks(q, vm, reasons);
  const auto there = spec_there(q, vm.spec);
  for (const auto& datastore : local_datastores(q, there.ok() ? *there : vm.spec)) {
    reasons.push_back(fmt::format("VM {} has data on {}, which is local to its host.{}", name, datastore,
                                  q.disks.datastore.empty() ? " Name a datastore that the other host has: --datastore."
                                                            : ""));
  }
}

// Phrases about the host, to follow its name.
std::vector<std::string> obstacles_at(const Question& q, const record::VmRecord& vm, const HostId& to) {
  auto record = q.view.hosts.find(to);
  if (record == q.view.hosts.end()) return {"is not a host of this cluster"};
  const auto* owner = q.view.owner(vm.id);
  if (owner != nullptr && owner->record.phase != OwnerRecord::Phase::released && owner->record.host == to) {
    return {"is where the VM is now"};
  }
  auto candidate = std::find_if(q.candidates.begin(), q.candidates.end(),
                                [&](const auto& each) { return each.host->host == to; });
  if (health_of(q, to) != ha::Health::alive || candidate == q.candidates.end()) {
    return {"has no contact to the cluster"};
  }
  std::map<std::string, std::string> ids;
  for (const auto& [id, datastore] : q.view.datastores) ids[datastore.record.name] = id;
  record::VmRecord there = vm;
  if (auto spec = spec_there(q, vm.spec); spec.ok()) there.spec = std::move(*spec);
  placement::Need need = placement::need_of(there, ids);
  need.pinned_host.clear();
  auto found = placement::obstacles(*candidate, need);
  const record::HostRecord& host = record->second.record;
  for (const auto& id : need.datastores) {
    auto problem = host.datastore_problems.find(id);
    if (problem != host.datastore_problems.end()) found.push_back("cannot use " + id + ": " + problem->second);
  }
  if (decided(q) == record::Engine::qemu && loses_writes(host)) {
    found.push_back(fmt::format("has QEMU {}: QEMU's own migration loses what an emulated guest writes before version "
                                "{}.0", host.qemu_version, kOwnMigrationSince));
  }
  auto source = owner == nullptr ? q.view.hosts.end() : q.view.hosts.find(owner->record.host);
  if (source == q.view.hosts.end()) return found;
  const record::HostRecord& from = source->second.record;
  if (from.accelerator != host.accelerator) {
    found.push_back(fmt::format("runs guests by {}, not by {} as {} does", host.accelerator, from.accelerator,
                                from.host.text));
  } else if (const std::string why = cpu::why_differs(owner->record.cpu, from, host); !why.empty()) {
    found.push_back(why);
  }
  if (numbers_of(host.qemu_version) < numbers_of(from.qemu_version)) {
    found.push_back(fmt::format("has QEMU {}, older than the {} of {}", host.qemu_version, from.qemu_version,
                                from.host.text));
  }
  return found;
}

}  // namespace

std::string why_closed(const HostId& host, const ha::View& view) {
  auto found = view.maintenance.find(host);
  if (found == view.maintenance.end()) return {};
  const bool in = found->second.record.state == record::MaintenanceRecord::State::in;
  return in ? "is in maintenance" : "is entering maintenance";
}

std::string why_unknown(const std::string& datastore, const ha::View& view) {
  const bool known = std::any_of(view.datastores.begin(), view.datastores.end(),
                                 [&](const auto& entry) { return entry.second.record.name == datastore; });
  return known ? "" : "There is no datastore named " + datastore + ": `holdfast datastore ls` lists them.";
}

std::string requester_of(const HostId& host) { return kMaintenanceOf + host.text; }

bool called_off(const record::TaskRecord& task, const ha::View& view) {
  if (task.requested_by.compare(0, kMaintenanceOf.size(), kMaintenanceOf) != 0) return false;
  const HostId host(task.requested_by.substr(kMaintenanceOf.size()));
  const auto* owner = view.owner(task.vm);
  return view.maintenance.count(host) == 0 || owner == nullptr || owner->record.host != host;
}

HostId other_side(const record::MotionRecord& motion, const ha::View& view) {
  const auto* owner = view.owner(motion.vm);
  return owner != nullptr && owner->record.host == motion.to ? motion.from : motion.to;
}

std::vector<placement::Candidate> use_of_hosts(const ha::View& view, const std::map<HostId, ha::Assessment>& health) {
  std::vector<placement::Candidate> candidates;
  std::map<HostId, std::size_t> index;
  for (const auto& [host, record] : view.hosts) {
    auto known = health.find(host);
    if (known == health.end() || known->second.health != ha::Health::alive) continue;
    index[host] = candidates.size();
    std::string closed = why_closed(host, view);
    if (closed.empty()) closed = cpu::why_below(record.record, view.cluster ? view.cluster->record.evc : "");
    candidates.push_back({&record.record, 0, 0, std::move(closed)});
  }
  const auto add = [&](const HostId& host, const VmId& vm) {
    auto found = index.find(host);
    auto record = view.vms.find(vm);
    if (found == index.end() || record == view.vms.end()) return;
    candidates[found->second].used_mib += record->second.record.spec.memory_mib;
    ++candidates[found->second].vms;
  };
  for (const auto& [vm, owner] : view.owners) {
    if (owner.record.phase != OwnerRecord::Phase::released) add(owner.record.host, vm);
  }
  for (const auto& [vm, motion] : view.motions) add(other_side(motion.record, view), vm);
  return candidates;
}

Answer check(const Question& q) {
  auto found = q.view.vms.find(q.vm);
  if (found == q.view.vms.end()) return {{}, {"There is no such VM."}, q.engine};
  const record::VmRecord& vm = found->second.record;
  Answer answer;
  answer.engine = decided(q);
  check_vm(q, vm, answer.reasons);
  if (!q.to.empty()) {
    for (const auto& phrase : obstacles_at(q, vm, q.to)) answer.reasons.push_back(q.to.text + " " + phrase + ".");
    if (answer.reasons.empty()) answer.to = q.to;
    return answer;
  }
  std::vector<placement::Candidate> fit;
  std::vector<std::string> unfit;
  const auto* owner = q.view.owner(q.vm);
  for (const auto& [host, record] : q.view.hosts) {
    if (owner != nullptr && owner->record.host == host) continue;
    const auto phrases = obstacles_at(q, vm, host);
    for (const auto& phrase : phrases) unfit.push_back(host.text + " " + phrase + ".");
    if (!phrases.empty()) continue;
    fit.push_back(*std::find_if(q.candidates.begin(), q.candidates.end(),
                                [&, name = host](const auto& each) { return each.host->host == name; }));
  }
  if (fit.empty()) answer.reasons.insert(answer.reasons.end(), unfit.begin(), unfit.end());
  if (!answer.reasons.empty()) return answer;
  placement::Need need;
  need.memory_mib = vm.spec.memory_mib;
  const auto best = placement::choose(fit, need);
  if (best.ok()) answer.to = *best;
  else answer.reasons.push_back(best.error().what);
  return answer;
}

}  // namespace hf::motion
