// A launch, in the order that events.hpp demands, and the life and end of a QEMU process.
#include "sim/host.hpp"
#include "sim/world.hpp"

namespace hf::sim {
namespace {
constexpr Duration kDiskPatience = 10s;
constexpr Duration kGuardPatience = 2s;
}  // namespace

void Host::launch(const ha::action::Launch& launch) {
  const VmId& vm = launch.vm.id;
  launching_[vm] = launch.generation;
  // Whatever the last life of this VM left behind is gone before the next begins.
  if (processes_.count(vm) != 0) return launched(launch, false, false, "Its old QEMU is still there.");
  confirm_owner(launch);
}

void Host::confirm_owner(const ha::action::Launch& launch) {
  const int life = daemon.life();
  auto answered = std::make_shared<bool>(false);  // shared by the access and the limit of our patience
  w_.queue.after(kDiskPatience, [this, launch, life, answered] {
    if (*answered) return;
    *answered = true;
    daemon.post(life, [this, launch] { launched(launch, false, false, "Its datastore does not answer."); });
  });
  w_.disks.access(index_, 0, [this, launch, life, answered](bool ok) {
    Epoch& written = w_.disks.owner_files()[launch.vm.id];
    const bool newer = written > launch.owner.epoch;
    if (ok && !newer) written = launch.owner.epoch;
    if (*answered) return;
    *answered = true;
    daemon.post(life, [this, launch, ok, newer] {
      if (!ok) return launched(launch, false, false, "Its datastore cannot be written.");
      if (newer)
        return launched(launch, false, false, "Its datastore says that another has a newer right to run it.");
      start_qemu(launch);
    });
  });
}

void Host::start_qemu(const ha::action::Launch& launch) {
  const int life = daemon.life();
  Process fresh;
  fresh.vm = launch.vm.id;
  fresh.epoch = launch.owner.epoch;
  fresh.number = w_.fresh_number();
  fresh.is_protected = launch.owner.guarded;
  fresh.memory.boot = fresh.number;
  fresh.memory.cpu = fresh.cpu = launch.owner.cpu;
  fresh.image = image_of(launch.vm.spec);
  const std::uint64_t number = fresh.number;
  processes_[launch.vm.id] = fresh;
  w_.queue.after(w_.between(w_.params.launch_min, w_.params.launch_max), [this, launch, life, number] {
    daemon.post(life, [this, launch, number] {
      if (process(launch.vm.id, number) == nullptr)
        return launched(launch, false, false, "QEMU ended at once.");
      if (w_.rng.chance(w_.faulty.launch_failure)) {
        remove_process(launch.vm.id);
        return launched(launch, false, false, "QEMU does not start.");
      }
      admit(launch, number);
    });
  });
}

void Host::admit(const ha::action::Launch& launch, std::uint64_t number) {
  const int life = daemon.life();
  auto answered =
      std::make_shared<bool>(false);  // shared by the guard's answer and the limit of our patience
  const auto answer = [this, launch, number, life, answered](const Status& status) {
    if (*answered) return;
    *answered = true;
    daemon.post(life, [this, launch, number, status] { admitted(launch, number, status); });
  };
  w_.queue.after(kGuardPatience,
                 [answer] { answer(Error{Code::unavailable, "The guard does not answer."}); });
  const ha::Admission admission{launch.vm.id, launch.owner.epoch, "", "", launch.owner.guarded};
  ask_guard([this, launch, number, admission, answer](ha::Guard& guard) {
    if (process(launch.vm.id, number) == nullptr) return;
    const bool lax = w_.bug == ha::KeptBug::claim_before_freeze_counts;
    const Status status = guard.admit(admission, lax ? guard.generation() : launch.generation, local());
    if (status.ok()) processes_.at(launch.vm.id).admitted = admission;
    w_.queue.after(1ms, [answer, status] { answer(status); });
  });
}

void Host::admitted(const ha::action::Launch& launch, std::uint64_t number, const Status& answer) {
  Process* started = process(launch.vm.id, number);
  if (started == nullptr) return launched(launch, false, false, "QEMU ended at once.");
  if (!answer.ok() && w_.bug != ha::KeptBug::launch_without_admission) {
    remove_process(launch.vm.id);
    return launched(launch, false, true, answer.error().what);
  }
  // safety (admitted VMs only): nothing runs that the guard would not freeze.
  started->resumed = true;
  refresh(*started);
  write_disk(launch.vm.id, number);
  launched(launch, true, false, "");
}

void Host::launched(const ha::action::Launch& launch, bool ok, bool refused, const std::string& error) {
  launching_.erase(launch.vm.id);
  if (!ok)
    w_.trace([&] { return fmt::format("{}: {} does not start: {}", id_.text, launch.vm.id.text, error); });
  deliver(ha::event::Launched{launch.vm.id, launch.owner.epoch, ok, refused, Error{Code::failed, error}});
}

void Host::write_disk(const VmId& vm, std::uint64_t number) {
  Process* writer = process(vm, number);
  if (writer == nullptr) return;
  if (may_write(*writer)) {
    w_.checker.disk_write(*this, *writer);
    write_image(*writer);
  }
  if (writer->runs) {
    ++writer->memory.ticks;
    w_.checker.memory_changed(*writer);
  }
  w_.queue.after(w_.between(100ms, 900ms), [this, vm, number] { write_disk(vm, number); });
}

Process* Host::process(const VmId& vm, std::uint64_t number) {
  auto found = processes_.find(vm);
  return found == processes_.end() || found->second.number != number ? nullptr : &found->second;
}

void Host::remove_process(const VmId& vm, const Deed& dropped) {
  auto found = processes_.find(vm);
  if (found == processes_.end()) return;
  end_engine(vm);
  found->second.resumed = false;
  refresh(found->second);
  const Epoch epoch = found->second.epoch;
  processes_.erase(found);
  auto answered = std::make_shared<bool>(false);  // shared by the guard's answer and the limit of our patience
  const auto answer = [answered, dropped] {
    if (!std::exchange(*answered, true) && dropped) dropped();
  };
  if (dropped) w_.queue.after(kGuardPatience, answer);
  ask_guard([this, vm, epoch, answer](ha::Guard& guard) {
    guard.drop(vm, epoch, local());
    answer();
  });
}

void Host::end_process(const VmId& vm, ha::ExitKind kind, const std::string& text) {
  auto found = processes_.find(vm);
  if (found == processes_.end()) return;
  const Epoch epoch = found->second.epoch;
  const TaskId motion = found->second.motion;
  // A launch notices by itself; a daemon that is away finds nothing.
  const bool told = daemon.alive() && (found->second.resumed || found->second.ran || !motion.empty());
  if (kind != ha::ExitKind::killed) w_.checker.memory_lost(found->second);
  w_.trace([&] {
    return fmt::format("{}: {} epoch {} ends{}{}", id_.text, vm.text, epoch.number, text.empty() ? "" : ": ",
                       text);
  });
  // The guard first: what it still has of this process must not strike the next one.
  const Deed tell = [this, vm, epoch, kind, text, motion, life = daemon.life()] {
    daemon.post(life, [this, exited = ha::event::Exited{vm, epoch, kind, text, motion}] { deliver(exited); });
  };
  remove_process(vm, told ? tell : Deed{});
}

}  // namespace hf::sim
