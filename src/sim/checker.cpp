#include "sim/checker.hpp"

#include <algorithm>

#include "sim/world.hpp"

namespace hf::sim {
namespace {
using record::OwnerRecord;
using Phase = OwnerRecord::Phase;
namespace key = record::key;

std::string after(const std::string& text, const std::string& prefix) {
  return text.compare(0, prefix.size(), prefix) == 0 ? text.substr(prefix.size()) : std::string();
}

std::string text_of(const OwnerRecord& owner) {
  return fmt::format("{} {} epoch {}", name_of(owner.phase), owner.host.text, owner.epoch.number);
}

bool moves(const OwnerRecord& before, const OwnerRecord& next) {
  return before.phase == Phase::claimed && next.phase == Phase::claimed && before.host != next.host &&
         next.epoch == before.epoch.next() && !next.motion.empty();
}

bool legal(const OwnerRecord& before, const OwnerRecord& next, bool existed) {
  const bool up = next.epoch == before.epoch.next(), same = next.epoch == before.epoch;
  switch (next.phase) {
    case Phase::assigned:
      return existed ? up : next.epoch.number == 1;
    case Phase::claimed:
      if (moves(before, next)) return true;
      if (before.phase == Phase::released || before.host != next.host) return false;
      return same || (up && before.phase == Phase::claimed);
    case Phase::released:
      return same && before.phase != Phase::released;
  }
  return false;
}
}  // namespace

void Checker::fail(std::string invariant, std::string what) {
  if (!violation_) violation_ = Violation{std::move(invariant), std::move(what), w_.queue.now()};
}

void Checker::before_commit(int by, const ha::TypedTxn& txn) {
  ++counts_.commits;
  for (const auto& write : txn.writes) {
    if (const auto vm = after(write.key, key::kOwners); !vm.empty())
      check_owner_change(by, VmId(vm), write.value);
    const auto* record = std::get_if<record::VmRecord>(&write.value);
    if (record != nullptr && record->desired == record::Desired::stopped) vms_[record->id].lost = true;
    const auto* owner = std::get_if<OwnerRecord>(&write.value);
    if (owner != nullptr && owner->phase == Phase::assigned)
      check_open(VmId(after(write.key, key::kOwners)), owner->host);
    const auto* motion = std::get_if<record::MotionRecord>(&write.value);
    if (motion != nullptr && motion->phase == record::MotionRecord::Phase::preparing)
      check_open(motion->vm, motion->to);
    const auto* relocation = std::get_if<record::RelocationRecord>(&write.value);
    if (relocation != nullptr && relocation->phase == record::RelocationRecord::Phase::committed) ++counts_.relocations;
    log_change(write);
  }
  for (const auto& event : txn.events) {
    if (by >= 0) reported(w_.host(by), event);
  }
}

void Checker::log_change(const ha::TypedTxn::Write& write) {
  if (const auto* owner = std::get_if<OwnerRecord>(&write.value)) {
    w_.mix(owner->epoch.number);
    w_.trace([&] {
      return fmt::format("store: {}: {}{}{}", write.key, text_of(*owner), owner->reason.empty() ? "" : ", ",
                         owner->reason);
    });
  } else if (const auto* status = std::get_if<record::VmStatus>(&write.value)) {
    w_.trace(
        [&] { return fmt::format("store: {}: {}: {}", write.key, name_of(status->state), status->message); });
  } else if (const auto* vm = std::get_if<record::VmRecord>(&write.value)) {
    w_.trace([&] { return fmt::format("store: {}: wanted {}", write.key, name_of(vm->desired)); });
  } else if (const auto* task = std::get_if<record::TaskRecord>(&write.value)) {
    w_.trace([&] {
      return fmt::format("store: {}: {} {} {}{}", write.key, name_of(task->kind), task->vm.text,
                         name_of(task->state), task->message.empty() ? "" : ": " + task->message);
    });
  } else if (const auto* motion = std::get_if<record::MotionRecord>(&write.value)) {
    w_.trace([&] {
      return fmt::format("store: {}: {} {} from {} to {}", write.key, motion->id.text, name_of(motion->phase),
                         motion->from.text, motion->to.text);
    });
  } else if (const auto* relocation = std::get_if<record::RelocationRecord>(&write.value)) {
    w_.trace([&] {
      return fmt::format("store: {}: {} {} by {}", write.key, relocation->id.text, name_of(relocation->phase),
                         relocation->host.text);
    });
  } else if (const auto* maintenance = std::get_if<record::MaintenanceRecord>(&write.value)) {
    w_.trace([&] {
      return fmt::format("store: {}: {}{}{}", write.key, name_of(maintenance->state),
                         maintenance->message.empty() ? "" : ": ", maintenance->message);
    });
  } else if (std::holds_alternative<record::SessionRecord>(write.value)) {
    if (write.lease != 0) w_.trace([&] { return fmt::format("store: {}: begins", write.key); });
  } else if (std::holds_alternative<std::monostate>(write.value)) {
    w_.trace([&] { return fmt::format("store: {}: erased", write.key); });
  }
}

void Checker::check_owner_change(int by, const VmId& vm, const record::Any& value) {
  const auto* entry = w_.store.get(key::kOwners + vm.text);
  const OwnerRecord before = entry == nullptr ? OwnerRecord{} : std::get<OwnerRecord>(entry->value);
  const auto* next = std::get_if<OwnerRecord>(&value);
  if (next == nullptr) {
    if (before.phase != Phase::released) fail("edges", vm.text + " is erased while " + text_of(before));
    return;
  }
  auto& facts = vms_[vm];
  const std::string change = fmt::format("{}: {} -> {}", vm.text, text_of(before), text_of(*next));
  if (next->epoch < facts.owned) fail("epochs", change + ": the epoch falls");
  facts.owned = std::max(facts.owned, next->epoch);
  if (!legal(before, *next, entry != nullptr)) fail("edges", change);
  if (moves(before, *next))
    check_move(by, vm, before, *next);
  else if (next->phase == Phase::claimed && (by < 0 || w_.host(by).id() != next->host))
    fail("edges", change + ": by another");
  if (next->phase != Phase::claimed) facts.lost = true;  // taken over, or stopped
  if (before.phase == Phase::claimed && next->phase == Phase::assigned) {
    ++counts_.takeovers;
    check_takeover(vm, before);
  }
  if (before.phase == Phase::claimed && next->phase == Phase::released && by >= 0 &&
      w_.host(by).id() != before.host) {
    check_takeover(vm, before);
  }
}

void Checker::check_move(int by, const VmId& vm, const OwnerRecord& before, const OwnerRecord& next) {
  ++counts_.moves;
  const std::string what = fmt::format("{} is moved from {} to {}", vm.text, before.host.text, next.host.text);
  const auto* entry = w_.store.get(key::kMotions + vm.text);
  const auto* motion = entry == nullptr ? nullptr : std::get_if<record::MotionRecord>(&entry->value);
  const bool named = motion != nullptr && motion->id == next.motion && motion->from == before.host &&
                     motion->to == next.host && motion->epoch == before.epoch &&
                     motion->phase == record::MotionRecord::Phase::ready;
  if (!named) return fail("moved", what + " without a motion that is ready");
  if (by < 0 || w_.host(by).id() != before.host) fail("moved", what + " by another");
  const Host& source = w_.host(w_.host_index(before.host));
  const Host& destination = w_.host(w_.host_index(next.host));
  auto guest = source.processes().find(vm);
  const bool runs = guest != source.processes().end() && guest->second.resumed;
  if (runs) fail("moved", what + ", where it may run");
  auto waiting = destination.processes().find(vm);
  const bool waits = waiting != destination.processes().end() && waiting->second.epoch == next.epoch &&
                     waiting->second.memory == vms_[vm].memory;
  const auto* session = w_.store.get(key::kSessions + next.host.text);
  const bool lives =
      session != nullptr && std::get<record::SessionRecord>(session->value).session == next.session;
  if (!waits && !lives) fail("moved", what + ", which is known to be gone");
}

void Checker::check_memory(const Host& host, const Process& process, VmFacts& facts) {
  const std::string what = fmt::format("{} epoch {} on {}", process.vm.text, process.epoch.number, host.id().text);
  const Memory& memory = process.memory;
  if (!holds_right(host, process)) return;  // a machine that stood still; the other invariants see to it
  if (memory.cpu != process.cpu) fail("cpu", what + " goes on with another CPU than it booted with");
  if (memory.boot == facts.memory.boot) {
    if (memory.ticks != facts.memory.ticks + 1) fail("memory", what + " runs with old memory");
  } else if (memory.boot != process.number) {
    fail("memory", what + " runs without its memory");
  } else if (facts.memory.boot != 0 && !facts.lost) {
    fail("memory", what + " boots anew, and nobody has lost its memory");
  }
  facts.memory = memory;
  // What is not wanted running is killed as soon as it runs, and may boot anew when it is wanted again.
  const auto* stored = w_.store.get(key::kVms + process.vm.text);
  const auto* record = stored == nullptr ? nullptr : std::get_if<record::VmRecord>(&stored->value);
  facts.lost = record == nullptr || record->desired == record::Desired::stopped;
}

void Checker::memory_changed(const Process& process) {
  auto& facts = vms_[process.vm];
  if (facts.memory.boot == process.memory.boot) facts.memory = process.memory;
}

void Checker::memory_lost(const Process& process) {
  auto& facts = vms_[process.vm];
  if (facts.memory.boot == process.memory.boot) facts.lost = true;
}

void Checker::check_room(const ha::View& view, const VmId& vm, const HostId& host) {
  std::uint64_t used = 0;
  const auto memory_of = [&](const VmId& each) {
    auto record = view.vms.find(each);
    return record == view.vms.end() ? 0 : record->second.record.spec.memory_mib;
  };
  for (const auto& [each, owner] : view.owners) {
    const bool counts = owner.record.phase != Phase::released && owner.record.host == host && each != vm;
    if (counts) used += memory_of(each);
  }
  for (const auto& [each, motion] : view.motions) {
    const auto& m = motion.record;
    auto owner = view.owners.find(each);
    const HostId& other = owner != view.owners.end() && owner->second.record.host == m.to ? m.from : m.to;
    if (other == host && each != vm) used += memory_of(each);
  }
  if (used + memory_of(vm) > w_.params.host_memory_mib) {
    fail("room", fmt::format("{} is given {} with {} MiB in use", host.text, vm.text, used));
  }
}

void Checker::check_open(const VmId& vm, const HostId& host) {
  if (w_.store.get(key::kMaintenance + host.text) != nullptr)
    fail("maintenance", vm.text + " is given to " + host.text + ", which is in maintenance");
}

void Checker::check_motions(const ha::View& view, const HostId& host) {
  int motions = 0;
  for (const auto& [vm, motion] : view.motions) {
    if (motion.record.from == host || motion.record.to == host) ++motions;
  }
  if (motions >= 4) fail("room", fmt::format("{} is given one more than {} motions", host.text, motions));
}

void Checker::decided(const Host& host, const ha::TypedTxn& txn) {
  const ha::View& view = host.core()->view();
  for (const auto& write : txn.writes) {
    const auto* owner = std::get_if<OwnerRecord>(&write.value);
    if (owner != nullptr && owner->phase == Phase::assigned) {
      check_room(view, VmId(after(write.key, key::kOwners)), owner->host);
    }
    const auto* motion = std::get_if<record::MotionRecord>(&write.value);
    if (motion != nullptr && motion->phase == record::MotionRecord::Phase::preparing) {
      check_room(view, motion->vm, motion->to);
      check_motions(view, motion->from);
      check_motions(view, motion->to);
    }
  }
}

void Checker::check_takeover(const VmId& vm, const OwnerRecord& before) {
  const std::string what = vm.text + " is taken from " + before.host.text;
  if (no_takeover_) fail("calm", what);
  const Host& host = w_.host(w_.host_index(before.host));
  if (!host.on()) return;
  const ha::Guard* guard = host.guard();
  const bool fresh = guard != nullptr && guard->contact_fresh(host.local());
  if (auto launch = host.launching().find(vm); launch != host.launching().end()) {
    if (fresh && guard->generation() == launch->second) fail("proven-unable", what + ", which can launch it");
  }
  auto found = host.processes().find(vm);
  if (found == host.processes().end()) return;
  const Process& process = found->second;
  if (process.runs && !host.awakening()) fail("proven-unable", what + ", where it runs");
  if (host.may_write(process)) fail("proven-unable", what + ", where it may write to its disk");
  if (!fresh || !process.admitted) return;
  auto guarded = guard->vms().find(vm);
  if (guarded != guard->vms().end() && guarded->second.state != ha::Guard::State::frozen) {
    fail("proven-unable", what + ", whose guard lets it run");
  }
}

bool Checker::holds_right(const Host& host, const Process& process) const {
  const auto* entry = w_.store.get(key::kOwners + process.vm.text);
  if (entry == nullptr) return false;
  const auto& owner = std::get<OwnerRecord>(entry->value);
  return owner.phase == Phase::claimed && owner.host == host.id() && owner.epoch == process.epoch;
}

const Process* Checker::process_of(const Copy& copy, const VmId& vm) const {
  const auto& processes = w_.host(copy.host).processes();
  auto found = processes.find(vm);
  return found == processes.end() || found->second.number != copy.number ? nullptr : &found->second;
}

void Checker::begins_to_run(const Host& host, const Process& process) {
  ++counts_.runs;
  auto& facts = vms_[process.vm];
  const std::string what =
      fmt::format("{} epoch {} on {}", process.vm.text, process.epoch.number, host.id().text);
  w_.trace([&] {
    return fmt::format("{}: {} epoch {} runs", host.id().text, process.vm.text, process.epoch.number);
  });
  w_.mix(process.number);
  const bool asleep_before =
      host.awakening();  // it goes on because the machine goes on, not because anybody let it
  if (!asleep_before && !holds_right(host, process))
    fail("right-to-run", what + " begins to run without the right");
  auto [ran, added] = facts.processes.try_emplace(process.epoch, process.number);
  if (!added && ran->second != process.number) fail("epochs", what + ": two processes ran with this epoch");
  for (const auto& copy : facts.copies) {
    const Host& other = w_.host(copy.host);
    const Process* rival = process_of(copy, process.vm);
    const bool rival_held = rival != nullptr && other.awakening() && !other.may_write(*rival);
    const bool held = asleep_before && !host.may_write(process);
    if (!rival_held && !held) fail("one-copy", what + " and on " + other.id().text);
  }
  if (holds_right(host, process) && !asleep_before) check_image(process, what);
  check_memory(host, process, facts);
  facts.copies.push_back({host.index(), process.epoch, process.number});
}

void Checker::stops_running(const Host& host, const Process& process) {
  auto& copies = vms_[process.vm].copies;
  copies.erase(
      std::remove_if(copies.begin(), copies.end(), [&](const Copy& c) { return c.number == process.number; }),
      copies.end());
  w_.trace([&] {
    return fmt::format("{}: {} epoch {} stands still", host.id().text, process.vm.text, process.epoch.number);
  });
}

void Checker::disk_write(const Host& host, const Process& process) {
  auto& facts = vms_[process.vm];
  if (process.epoch < facts.written) {
    fail("disk", fmt::format("{} epoch {} on {} writes after epoch {}", process.vm.text, process.epoch.number,
                             host.id().text, facts.written.number));
  }
  facts.written = std::max(facts.written, process.epoch);
}

// As the store's spec says.
std::string Checker::named_image(const VmId& vm) const {
  const auto* entry = w_.store.get(key::kVms + vm.text);
  return entry == nullptr ? "" : image_of(std::get<record::VmRecord>(entry->value).spec);
}

void Checker::acknowledged(const Host& host, const Process& process, std::uint64_t write) {
  vms_[process.vm].acknowledged = write;
  const auto& images = w_.images[process.vm];
  auto named = images.find(named_image(process.vm));
  if (named != images.end() && named->second == write) return;
  fail("images", fmt::format("{} on {} was told of a write that is in {} and not in {}", process.vm.text,
                             host.id().text, process.image, named_image(process.vm)));
}

void Checker::deleted(const VmId& vm, const std::string& image) {
  w_.trace([&] { return fmt::format("{}: {} is deleted", vm.text, image); });
  if (named_image(vm) == image) fail("images", fmt::format("{} of {} is deleted, and is its disk", image, vm.text));
}

void Checker::check_image(const Process& process, const std::string& what) {
  const auto& images = w_.images[process.vm];
  auto image = images.find(process.image);
  const std::uint64_t written = vms_[process.vm].acknowledged;
  if (written > 0 && (image == images.end() || image->second != written)) {
    fail("images", fmt::format("{} begins with {}, which lacks what was written", what, process.image));
  }
}

void Checker::frozen(const Host& host, const Process& process) {
  ++counts_.freezes;
  if (no_freeze_) fail("calm", process.vm.text + " is frozen on " + host.id().text);
}

void Checker::reported(const Host& host, const record::EventRecord& event) {
  w_.trace([&] {
    return fmt::format("{}: event {} {}: {}", host.id().text, event.severity, event.kind, event.text);
  });
  static const std::set<std::string> kExplained = {"vm.crashed", "ha.host.dead", "ha.vm.unplaced"};
  if (event.severity == "error" && kExplained.count(event.kind) == 0)
    fail("errors", event.kind + ": " + event.text);
}

bool Checker::has_room(const record::VmRecord& vm) const {
  std::map<HostId, std::uint64_t> used;
  for (const auto& state : w_.store.all()) {
    const auto* owner = std::get_if<OwnerRecord>(&state.value);
    if (owner == nullptr || owner->phase == Phase::released) continue;
    const auto* other = w_.store.get(key::kVms + after(state.key, key::kOwners));
    if (other != nullptr) used[owner->host] += std::get<record::VmRecord>(other->value).spec.memory_mib;
  }
  for (int host = 0; host < w_.params.hosts; ++host) {
    if (!w_.host(host).on() || w_.store.get(key::kMaintenance + w_.host(host).id().text) != nullptr) continue;
    if (used[w_.host(host).id()] + vm.spec.memory_mib <= w_.params.host_memory_mib) return true;
  }
  return false;
}

// What motions have not tidied up.
std::string Checker::left_behind() const {
  for (const auto& state : w_.store.all()) {
    if (std::holds_alternative<record::MotionRecord>(state.value)) return state.key + " is not over";
    if (std::holds_alternative<record::RelocationRecord>(state.value)) return state.key + " is not over";
  }
  for (int host = 0; host < w_.params.hosts; ++host) {
    for (const auto& [vm, process] : w_.host(host).processes()) {
      if (process.mirror) return vm.text + " has a copy of its disk under way on " + w_.host(host).id().text;
      if (!process.resumed) return vm.text + " stands still on " + w_.host(host).id().text;
    }
    for (const auto& [vm, engine] : w_.host(host).engines()) {
      return "a motion process of " + vm.text + " is left on " + w_.host(host).id().text;
    }
  }
  return {};
}

// Hosts in maintenance that have VMs though there is room elsewhere, or do not say why.
std::string Checker::not_evacuated() const {
  std::set<HostId> holds;
  for (const auto& state : w_.store.all()) {
    const auto* owner = std::get_if<OwnerRecord>(&state.value);
    if (owner == nullptr || owner->phase == Phase::released) continue;
    holds.insert(owner->host);
    const auto* vm = w_.store.get(key::kVms + after(state.key, key::kOwners));
    if (vm == nullptr || w_.store.get(key::kMaintenance + owner->host.text) == nullptr) continue;
    const auto& record = std::get<record::VmRecord>(vm->value);
    if (has_room(record)) return record.id.text + " stays on " + owner->host.text + ", which is to be in maintenance";
  }
  for (const auto& state : w_.store.all()) {
    const auto* maintenance = std::get_if<record::MaintenanceRecord>(&state.value);
    if (maintenance == nullptr) continue;
    const bool in = maintenance->state == record::MaintenanceRecord::State::in;
    if (in == (holds.count(maintenance->host) != 0)) return state.key + " has the wrong state";
    if (in != maintenance->message.empty()) return state.key + " does not say what it waits for";
  }
  return {};
}

// Nothing can be done to it before it runs, and it can run nowhere.
bool Checker::waits_for_room(const VmId& vm) const {
  const auto* stored = w_.store.get(key::kVms + vm.text);
  auto facts = vms_.find(vm);
  const bool runs = facts != vms_.end() && !facts->second.copies.empty();
  if (stored == nullptr || runs) return false;
  const auto& record = std::get<record::VmRecord>(stored->value);
  return record.desired == record::Desired::running && !has_room(record);
}

std::string Checker::unsettled() const {
  if (const std::string left = left_behind(); !left.empty()) return left;
  if (const std::string stays = not_evacuated(); !stays.empty()) return stays;
  for (const auto& state : w_.store.all()) {
    if (const auto* task = std::get_if<record::TaskRecord>(&state.value)) {
      const bool over =
          task->state == record::TaskState::succeeded || task->state == record::TaskState::failed;
      if (!over && !waits_for_room(task->vm))
        return fmt::format("task {} ({} {}) is not over", task->id.text, name_of(task->kind), task->vm.text);
    }
    const auto* vm = std::get_if<record::VmRecord>(&state.value);
    if (vm == nullptr) continue;
    const bool wanted = vm->desired == record::Desired::running;
    auto facts = vms_.find(vm->id);
    const std::size_t copies = facts == vms_.end() ? 0 : facts->second.copies.size();
    if (wanted && copies != 1 && has_room(*vm)) {
      const auto* status = w_.store.get(key::kStatus + vm->id.text);
      if (status != nullptr && copies == 0 && !has_room(*vm)) continue;
      return fmt::format("{} is wanted running and has {} running copies", vm->id.text, copies);
    }
    if (wanted) continue;
    for (int host = 0; host < w_.params.hosts; ++host) {
      if (w_.host(host).processes().count(vm->id) != 0) {
        return fmt::format("{} is wanted stopped and has a process on {}", vm->id.text,
                           w_.host(host).id().text);
      }
    }
  }
  return {};
}

}  // namespace hf::sim
