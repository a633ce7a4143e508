// The motion processes of a host (one for each side of a vMotion) and the deeds of the daemon's shell around them.
// What they say to each other gets lost, comes late and twice; they may die at any step.
#include <algorithm>

#include "core/motion/motion.hpp"
#include "core/vm/qemu_command.hpp"
#include "sim/host.hpp"
#include "sim/world.hpp"

namespace hf::sim {
namespace {
constexpr Duration kSocket = 1ms;          // to the daemon and back
constexpr Duration kStall = 3s;            // a sender hears nothing for this long: it gives up
constexpr Duration kStallLook = 500ms;
constexpr Duration kDiskPatience = 10s;
constexpr Duration kGuardPatience = 2s;
}  // namespace

MotionEngine* Host::engine(const VmId& vm, std::uint64_t number) {
  auto found = engines_.find(vm);
  return found == engines_.end() || found->second.number != number ? nullptr : &found->second;
}

// The process does this after that long, if it is still there; a machine that stands still does nothing.
void Host::engine_later(Duration delay, const VmId& vm, std::uint64_t number, std::function<void(MotionEngine&)> deed) {
  w_.queue.after(delay, [this, vm, number, deed = std::move(deed)] {
    MotionEngine* mine = engine(vm, number);
    if (mine == nullptr) return;
    if (hung()) return engine_later(50ms, vm, number, deed);
    deed(*mine);
  });
}

void Host::say(const MotionEngine& from, const TaskId& id, int to, std::function<void(Host&, MotionEngine&)> what) {
  const int copies = w_.rng.chance(w_.faulty.motion_doubled) ? 2 : 1;
  for (int copy = 0; copy < copies; ++copy) {
    if (to != index_ && w_.rng.chance(w_.faulty.motion_loss)) continue;
    Duration takes = w_.between(0ms, w_.params.net_max);
    if (w_.rng.chance(w_.faulty.motion_loss)) takes += w_.between(0ms, 4s);
    w_.queue.after(takes, [this, vm = from.vm, id, to, what] {
      Host& peer = w_.host(to);
      auto found = peer.engines_.find(vm);
      if (!w_.network.both(index_, to) || found == peer.engines_.end() || found->second.id != id) return;
      peer.engine_later(0ms, vm, found->second.number, [&peer, what](MotionEngine& heard) { what(peer, heard); });
    });
  }
}

void Host::prepare(const ha::action::Prepare& prepare) {
  const VmId& vm = prepare.vm.id;
  const auto answer = [this, vm, id = prepare.motion.id](bool ok, const std::string& token) {
    deliver(ha::event::Prepared{vm, id, ok, id_.text, token, Error{Code::failed, "QEMU does not start."}});
  };
  if (processes_.count(vm) != 0) return answer(false, "");
  Process fresh;
  fresh.vm = vm;
  fresh.epoch = prepare.epoch;
  fresh.number = w_.fresh_number();
  const auto* owner = core_->view().owner(vm);
  fresh.is_protected = owner != nullptr && owner->record.guarded;
  fresh.motion = prepare.motion.id;
  fresh.cpu = !prepare.owner.cpu.empty()            ? prepare.owner.cpu
              : !prepare.vm.spec.cpu_model.empty() ? prepare.vm.spec.cpu_model
                                                   : std::string(vm::kPinnedCpu);
  fresh.image = image_of(prepare.vm.spec);
  processes_[vm] = fresh;
  w_.queue.after(w_.between(w_.params.launch_min, w_.params.launch_max),
                 [this, vm, number = fresh.number, id = prepare.motion.id, image = fresh.image,
                  takes_disks = motion::takes_disks(prepare.motion), answer, life = daemon.life()] {
                   daemon.post(life, [this, vm, number, id, image, takes_disks, answer] {
                     if (process(vm, number) == nullptr) return answer(false, "");
                     if (w_.rng.chance(w_.faulty.launch_failure)) {
                       remove_process(vm);
                       return answer(false, "");
                     }
                     if (takes_disks) w_.images[vm].try_emplace(image, 0);
                     MotionEngine receiver;
                     receiver.vm = vm;
                     receiver.id = id;
                     receiver.number = w_.fresh_number();
                     receiver.qemu = number;
                     engines_[vm] = receiver;
                     w_.trace([&] { return fmt::format("{}: {} may come", id_.text, vm.text); });
                     answer(true, fmt::format("{}", receiver.number));
                   });
                 });
}

void Host::send(const ha::action::Send& send) {
  auto found = processes_.find(send.vm.id);
  if (found == processes_.end()) return;  // its end is told by Exited
  MotionEngine sender;
  sender.vm = send.vm.id;
  sender.id = send.motion.id;
  sender.number = w_.fresh_number();
  sender.qemu = found->second.number;
  sender.sends = true;
  sender.peer = w_.host_index(HostId(send.motion.endpoint));
  sender.rounds_left = static_cast<int>(w_.rng.between(0, w_.params.motion_rounds));
  sender.heard = w_.queue.now();
  const auto after = vm::relocated(send.vm.spec, send.motion.disks);
  if (motion::takes_disks(send.motion) && after.ok()) {
    sender.image = image_of(*after);
    found->second.mirror = Mirror{sender.id, sender.image, Mirror::State::copying, sender.peer};
    mirror_on(sender.vm, sender.qemu, sender.id);
  }
  engines_[sender.vm] = sender;
  w_.trace([&] { return fmt::format("{}: {} is copied to {}", id_.text, sender.vm.text, send.motion.endpoint); });
  watch_peer(sender.vm, sender.number);
  say(sender, sender.id, sender.peer, [token = send.motion.token, from = index_](Host& peer, MotionEngine& receiver) {
    // A stranger, or a second stream into what has begun already, is refused.
    if (receiver.sends || fmt::format("{}", receiver.number) != token) return;
    receiver.peer = from;
    peer.say(receiver, receiver.id, from, [](Host& self, MotionEngine& mine) { self.copy_on(mine); });
  });
}

void Host::watch_peer(const VmId& vm, std::uint64_t number) {
  engine_later(kStallLook, vm, number, [this](MotionEngine& sender) {
    const bool silent = w_.queue.now() - sender.heard > kStall;
    if (silent && !sender.asked) return fail_engine(sender, "The other side is silent.");
    watch_peer(sender.vm, sender.number);
  });
}

// Something was answered: the next round, or the last one.
void Host::copy_on(MotionEngine& sender) {
  if (!sender.sends || sender.stopped) return;
  sender.heard = w_.queue.now();
  tell_daemon(ha::event::MotionProgress{sender.vm, sender.id, 100 / (std::max(sender.rounds_left, 0) + 1)});
  engine_later(w_.between(5ms, w_.params.motion_round_max), sender.vm, sender.number, [this](MotionEngine& mine) {
    if (mine.stopped) return;
    if (mine.rounds_left-- <= 0) return stop_for_good(mine);
    say(mine, mine.id, mine.peer, [from = index_](Host& peer, MotionEngine& receiver) {
      peer.say(receiver, receiver.id, from, [](Host& self, MotionEngine& back) { self.copy_on(back); });
    });
  });
}

void Host::stop_for_good(MotionEngine& sender) {
  Process* guest = process(sender.vm, sender.qemu);
  if (guest == nullptr || sender.stopped) return;
  // QEMU's monitor does not answer while it is frozen.
  if (guest->frozen) {
    return engine_later(100ms, sender.vm, sender.number, [this](MotionEngine& mine) { stop_for_good(mine); });
  }
  if (!sender.image.empty() && w_.bug != ha::KeptBug::ready_before_equal) {
    const Process* mirrors = mirroring(sender.vm, sender.qemu, sender.id);
    if (mirrors == nullptr) return fail_engine(sender, "The copy of the disks failed.");
    if (mirrors->mirror->state != Mirror::State::ready) {
      sender.heard = w_.queue.now();
      return engine_later(50ms, sender.vm, sender.number, [this](MotionEngine& mine) { stop_for_good(mine); });
    }
  }
  sender.stopped = true;
  guest->resumed = false;
  end_mirror(sender);
  refresh(*guest);
  engine_later(w_.between(1ms, 100ms), sender.vm, sender.number, [this](MotionEngine& mine) {
    Process* still = process(mine.vm, mine.qemu);
    if (still == nullptr || mine.asked) return;
    say(mine, mine.id, mine.peer, [memory = still->memory, from = index_](Host& peer, MotionEngine& receiver) {
      peer.load(receiver, memory, from);
    });
  });
}

void Host::end_mirror(const MotionEngine& sender) {
  Process* mirrors = sender.image.empty() ? nullptr : mirroring(sender.vm, sender.qemu, sender.id);
  if (mirrors != nullptr) mirrors->mirror.reset();
}

void Host::load(MotionEngine& receiver, const Memory& memory, int from) {
  Process* waiting = process(receiver.vm, receiver.qemu);
  if (waiting == nullptr || receiver.sends) return;
  if (waiting->memory.boot == 0) {
    waiting->memory = memory;
    w_.trace([&] { return fmt::format("{}: {} is loaded", id_.text, receiver.vm.text); });
    if (w_.bug == ha::KeptBug::run_when_loaded) {
      waiting->resumed = true;
      refresh(*waiting);
    }
  }
  say(receiver, receiver.id, from, [](Host& self, MotionEngine& sender) {
    if (!sender.sends) return;
    sender.asked = true;
    self.tell_daemon(ha::event::MotionReady{sender.vm, sender.id});
  });
}

void Host::committed_motion(const ha::action::CommittedMotion& committed) {
  auto found = engines_.find(committed.vm);
  if (found == engines_.end() || found->second.id != committed.id || !found->second.sends) return;
  engine_later(kSocket, committed.vm, found->second.number, [this, version = committed.version](MotionEngine& sender) {
    say(sender, sender.id, sender.peer, [version](Host& peer, MotionEngine& receiver) {
      if (!receiver.sends) peer.tell_daemon(ha::event::Arrived{receiver.vm, receiver.id, version});
    });
    engines_.erase(VmId(sender.vm));
  });
}

void Host::abort_motion(const ha::action::AbortMotion& abort) {
  auto found = engines_.find(abort.vm);
  if (found != engines_.end() && found->second.sends) close_engine(found->second);
  auto guest = processes_.find(abort.vm);
  if (guest == processes_.end() || guest->second.epoch != abort.epoch) {
    return deliver_later(kSocket, ha::event::MotionAborted{abort.vm, abort.epoch, false});
  }
  w_.queue.after(w_.between(1ms, 30ms), [this, abort, number = guest->second.number, life = daemon.life()] {
    daemon.post(life, [this, abort, number] {
      Process* paused = process(abort.vm, number);
      if (paused != nullptr) {
        w_.trace([&] { return fmt::format("{}: {} goes on here", id_.text, abort.vm.text); });
        paused->resumed = true;
        refresh(*paused);
      }
      deliver(ha::event::MotionAborted{abort.vm, abort.epoch, paused != nullptr});
    });
  });
}

void Host::activate(const ha::action::Activate& activate) {
  auto found = processes_.find(activate.vm.id);
  const auto answer = [this, vm = activate.vm.id, epoch = activate.owner.epoch](bool ok, bool refused) {
    deliver(ha::event::Activated{vm, epoch, ok, refused, Error{Code::failed, "It could not be let run."}});
  };
  if (found == processes_.end()) return answer(false, false);
  const std::uint64_t number = found->second.number;
  const int life = daemon.life();
  auto answered = std::make_shared<bool>(false);  // shared by the guard's answer and the limit of our patience
  const auto settle = [this, activate, number, life, answered, answer](const Status& status) {
    if (*answered) return;
    *answered = true;
    daemon.post(life, [this, activate, number, status, answer] {
      Process* arrived = process(activate.vm.id, number);
      if (arrived == nullptr || !status.ok()) return answer(false, arrived != nullptr);
      // safety (admitted VMs only): nothing runs that the guard would not freeze.
      arrived->resumed = true;
      refresh(*arrived);
      write_disk(activate.vm.id, number);
      end_engine(activate.vm.id);
      answer(true, false);
    });
  };
  w_.queue.after(kGuardPatience, [settle] { settle(Error{Code::unavailable, "The guard does not answer."}); });
  const ha::Admission admission{activate.vm.id, activate.owner.epoch, "", "", activate.owner.guarded};
  ask_guard([this, activate, number, admission, settle](ha::Guard& guard) {
    Process* waiting = process(activate.vm.id, number);
    if (waiting == nullptr) return;
    const Status status = guard.admit(admission, activate.generation, local());
    if (status.ok()) waiting->admitted = admission;
    w_.queue.after(kSocket, [settle, status] { settle(status); });
  });
}

void Host::record_owner(const ha::action::RecordOwner& record) {
  const int life = daemon.life();
  auto answered = std::make_shared<bool>(false);  // shared by the access and the limit of our patience
  const auto answer = [this, record, life, answered](bool ok) {
    if (*answered) return;
    *answered = true;
    daemon.post(life, [this, record, ok] {
      deliver(ha::event::OwnerRecorded{record.vm.id, record.owner.epoch, ok});
    });
  };
  w_.queue.after(kDiskPatience, [answer] { answer(false); });
  w_.disks.access(index_, 0, [this, record, answer](bool ok) {
    Epoch& written = w_.disks.owner_files()[record.vm.id];
    if (ok) written = std::max(written, record.owner.epoch);
    answer(ok);
  });
}

void Host::tell_daemon(ha::Event event) { deliver_later(kSocket, std::move(event)); }

// It gives up by itself: lets the guest go on, unless it has asked whether it may not.
void Host::fail_engine(MotionEngine& failing, const std::string& why) {
  const MotionEngine gone = failing;
  w_.trace([&] { return fmt::format("{}: the motion of {} fails: {}", id_.text, gone.vm.text, why); });
  close_engine(failing);
  Process* guest = process(gone.vm, gone.qemu);
  if (gone.sends && gone.stopped && !gone.asked && guest != nullptr) {
    guest->resumed = true;
    refresh(*guest);
  }
  tell_daemon(ha::event::MotionFailed{gone.vm, gone.id, Error{Code::failed, why}});
}

void Host::crash_engine(const VmId& vm) {
  auto found = engines_.find(vm);
  if (found == engines_.end()) return;
  const MotionEngine gone = found->second;
  w_.trace([&] { return fmt::format("{}: the motion process of {} is killed", id_.text, vm.text); });
  close_engine(found->second);
  tell_daemon(ha::event::MotionFailed{gone.vm, gone.id, Error{Code::failed, "The motion process ended."}});
}

// The other side sees the connection end, if it hears of it.
void Host::close_engine(MotionEngine& closing) {
  const MotionEngine gone = closing;
  engines_.erase(gone.vm);
  end_mirror(gone);
  if (gone.peer < 0) return;
  say(gone, gone.id, gone.peer, [](Host& peer, MotionEngine& left) {
    if (!left.asked) peer.fail_engine(left, "The connection ended.");
  });
}

void Host::end_engine(const VmId& vm) {
  auto found = engines_.find(vm);
  if (found != engines_.end()) close_engine(found->second);
}

// The daemon has ended: who has not asked yet lets the guest go on; who has asked leaves it as it is.
void Host::orphan_engines() {
  while (!engines_.empty()) {
    const MotionEngine orphan = engines_.begin()->second;
    close_engine(engines_.begin()->second);
    Process* guest = process(orphan.vm, orphan.qemu);
    // One that is slow is killed by the next daemon before it comes to that.
    if (orphan.sends && orphan.stopped && !orphan.asked && guest != nullptr && w_.rng.chance(70)) {
      guest->resumed = true;
      refresh(*guest);
    }
  }
}

}  // namespace hf::sim
