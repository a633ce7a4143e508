// The shell of the guard: its timers, its slots, the freezing of VMs.
#include "sim/host.hpp"
#include "sim/world.hpp"

namespace hf::sim {
namespace {
constexpr Duration kSocket = 1ms;  // daemon to guard and back
}  // namespace

void Host::start_guard() {
  if (!on_ || guard_actor.alive()) return;
  w_.trace([&] { return fmt::format("{}: guard starts", id_.text); });
  guard_actor.start();
  guard_actor.set_hung(hung_ > 0);
  guard_.emplace(ha::GuardTiming{w_.params.timing.freeze_after, false});
  deadline_armed_ = reported_any_ = false;
  writing_.clear();
  for (const auto& [vm, process] : processes_) {
    if (process.admitted) guard_->restore(*process.admitted, process.page, process.frozen, local());
  }
  guard_->tick(local());
  carry_out_guard();
  const int life = guard_actor.life();
  every(w_.params.timing.heartbeat, guard_actor, life, [this] { write_slots(); });
}

void Host::crash_guard() {
  if (!guard_actor.alive()) return;
  w_.trace([&] { return fmt::format("{}: guard ends", id_.text); });
  guard_actor.die();
}

void Host::pause_guard() { guard_actor.set_paused(true); }
void Host::resume_guard() { guard_actor.set_paused(false); }

void Host::ask_guard(std::function<void(ha::Guard&)> call) {
  const int life = guard_actor.life();
  w_.queue.after(kSocket, [this, life, call = std::move(call)] {
    guard_actor.post(life, [this, call] {
      call(*guard_);
      carry_out_guard();
    });
  });
}

void Host::carry_out_guard() {
  std::vector<std::pair<VmId, std::uint64_t>> victims;
  for (const auto& action : guard_->take_actions()) {
    const VmId& vm = std::visit([](const auto& a) -> const VmId& { return a.vm; }, action);
    auto found = processes_.find(vm);
    if (found == processes_.end()) continue;
    Process& target = found->second;
    if (const auto* hold = std::get_if<ha::SetHold>(&action)) {
      target.page = hold->value;
    } else if (std::holds_alternative<ha::Freeze>(action)) {
      victims.emplace_back(vm, target.number);
    } else {
      target.frozen = false;
      w_.trace(
          [&] { return fmt::format("{}: {} epoch {} is thawed", id_.text, vm.text, target.epoch.number); });
      refresh(target);
    }
  }
  arm_deadline();
  if (victims.empty()) return report_guard(false);
  const int life = guard_actor.life();
  guard_actor.set_busy(true);
  w_.queue.after(w_.between(0ms, w_.params.guard_freeze),
                 [this, life, victims] { finish_freezing(life, victims); });
}

void Host::finish_freezing(int life, std::vector<std::pair<VmId, std::uint64_t>> victims) {
  if (guard_actor.life() != life) return;
  if (!guard_actor.moves()) {
    w_.queue.after(kSocket, [this, life, victims] { finish_freezing(life, victims); });
    return;
  }
  for (const auto& [vm, number] : victims) freeze(vm, number);
  report_guard(false);
  guard_actor.set_busy(false);
}

void Host::freeze(const VmId& vm, std::uint64_t number) {
  Process* victim = process(vm, number);
  if (victim == nullptr) return;
  victim->frozen = true;
  w_.trace([&] { return fmt::format("{}: {} epoch {} is frozen", id_.text, vm.text, victim->epoch.number); });
  w_.checker.frozen(*this, *victim);
  refresh(*victim);
}

void Host::report_guard(bool anyway) {
  ha::event::GuardReport report;
  report.generation = guard_->generation();
  report.lapsed = !guard_->contact_fresh(local());
  for (const auto& [vm, guarded] : guard_->vms()) {
    if (guarded.state == ha::Guard::State::frozen) report.frozen.insert(vm);
  }
  const bool same = reported_any_ && report.generation == reported_.generation &&
                    report.lapsed == reported_.lapsed && report.frozen == reported_.frozen;
  if (same && !anyway) return;
  reported_ = report;
  reported_any_ = true;
  deliver_later(kSocket, report);
}

void Host::arm_deadline() {
  if (deadline_armed_ || !guard_->contact_fresh(local())) return;
  deadline_armed_ = true;
  const Duration left = world_time(guard_->deadline() - local()) + w_.between(0ms, w_.params.guard_wake);
  w_.queue.after(left, [this, life = guard_actor.life()] {
    guard_actor.post(life, [this] {
      deadline_armed_ = false;
      guard_->tick(local());
      carry_out_guard();
    });
  });
}

void Host::write_slots() {
  for (int disk = 0; disk < w_.params.slots; ++disk) write_slot(disk);
}

void Host::write_slot(int disk) {
  if (writing_[disk]) return;
  writing_[disk] = true;
  const int life = guard_actor.life();
  const Instant began = local();
  const std::uint64_t content = w_.fresh_number();
  if (w_.rng.chance(w_.faulty.torn_slots)) {
    w_.disks.access(index_, disk, [this, disk](bool ok) {
      if (ok) w_.disks.slot(index_, disk) = w_.fresh_number();
    });
  }
  w_.disks.access(index_, disk, [this, disk, life, began, content](bool ok) {
    if (ok) w_.disks.slot(index_, disk) = content;
    guard_actor.post(life, [this, disk, began, ok] {
      writing_[disk] = false;
      if (!ok) return;
      guard_->renewed(ha::Channel::slot, began, local());
      carry_out_guard();
    });
  });
}

}  // namespace hf::sim
