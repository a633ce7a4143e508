// The shell of the daemon: events in, actions out.
#include "base/ensure.hpp"
#include "base/overloaded.hpp"
#include "sim/host.hpp"
#include "sim/world.hpp"

namespace hf::sim {

void Host::start_daemon() {
  if (!on_ || daemon.alive()) return;
  w_.trace([&] { return fmt::format("{}: daemon starts", id_.text); });
  daemon.start();
  daemon.set_hung(hung_ > 0);
  const int life = daemon.life();
  core_ = std::make_unique<ha::HostCore>(id_, w_.params.timing, w_.rng.next(), w_.bug);
  launching_.clear();
  watch_connected_ = watch_scheduled_ = watch_resumable_ = leads_ = false;
  reading_.clear();
  // A QEMU that the last life had not resumed yet never ran; nobody would resume it.
  std::vector<VmId> unfinished;
  ha::event::Adopted adopted;
  for (const auto& [vm, process] : processes_) {
    if (process.resumed)
      adopted.running.push_back({vm, process.epoch, process.motion});
    else if (process.ran)
      adopted.paused.push_back({vm, process.epoch, process.motion});
    else if (!process.motion.empty())
      adopted.incoming.push_back({vm, process.epoch, process.motion});
    else
      unfinished.push_back(vm);
  }
  for (const auto& vm : unfinished) remove_process(vm);
  deliver(adopted);
  if (guard_actor.alive()) report_guard(true);
  every(w_.params.timing.tick, daemon, life, [this] { tick(); });
  every(w_.params.timing.heartbeat, daemon, life, [this] { send_heartbeats(); });
  for (int disk = 0; disk < w_.params.slots; ++disk) {
    every(w_.params.timing.slot_read, daemon, life, [this, disk] { read_slots(disk); });
  }
}

void Host::crash_daemon() {
  if (!daemon.alive()) return;
  w_.trace([&] { return fmt::format("{}: daemon ends", id_.text); });
  daemon.die();
  core_.reset();
  launching_.clear();
  copying_.clear();
  orphan_engines();
}

void Host::deliver(const ha::Event& event) {
  for (const auto& action : core_->step(event, local())) perform(action);
}

void Host::deliver_later(Duration delay, ha::Event event) {
  w_.queue.after(delay, [this, life = daemon.life(), event = std::move(event)] {
    daemon.post(life, [this, event] { deliver(event); });
  });
}

void Host::perform(const ha::Action& action) {
  std::visit(overloaded{
                 [&](const ha::action::Grant& a) { grant(a.op, a.ttl); },
                 [&](const ha::action::KeepAlive& a) { keep_alive(a.op, a.lease); },
                 [&](const ha::action::Commit& a) { commit(a.op, a.txn); },
                 [&](const ha::action::Read& a) { read(a.op, a.key); },
                 [&](const ha::action::Renewed& a) {
                   ask_guard([this, began = a.began](ha::Guard& guard) {
                     guard.renewed(ha::Channel::store, began, local());
                   });
                 },
                 [&](const ha::action::Launch& a) { launch(a); },
                 [&](const ha::action::AskStop& a) { ask_stop(a.vm); },
                 [&](const ha::action::Kill& a) { kill(a.vm, a.why); },
                 [&](const ha::action::Reset& a) {
                   w_.trace([&] { return fmt::format("{}: {} is reset", id_.text, a.vm.text); });
                 },
                 [&](const ha::action::Thaw& a) {
                   ask_guard([this, a](ha::Guard& guard) {
                     const bool lax = w_.bug == ha::KeptBug::claim_before_freeze_counts;
                     const auto quoted = lax ? guard.generation() : a.generation;
                     (void)guard.thaw(a.vm, a.epoch, quoted, local());  // the guard's report tells
                   });
                 },
                 [&](const ha::action::Continue& a) {
                   w_.trace([&] { return fmt::format("{}: {} is continued", id_.text, a.vm.text); });
                 },
                 [&](const ha::action::Emit& a) { w_.checker.reported(*this, a.event); },
                 [&](const ha::action::Prepare& a) { prepare(a); },
                 [&](const ha::action::Send& a) { send(a); },
                 [&](const ha::action::AbortMotion& a) { abort_motion(a); },
                 [&](const ha::action::CommittedMotion& a) { committed_motion(a); },
                 [&](const ha::action::Activate& a) { activate(a); },
                 [&](const ha::action::RecordOwner& a) { record_owner(a); },
                 [&](const ha::action::Copy& a) { copy(a); },
                 [&](const ha::action::SettleCopy& a) { settle_copy(a); },
             },
             action);
}

void Host::tick() {
  if (!watch_connected_) connect_watch();
  deliver(ha::event::Tick{});
  if (leads_ == core_->is_leader()) return;
  leads_ = !leads_;
  w_.trace([&] { return fmt::format("{}: {}", id_.text, leads_ ? "leads" : "leads no more"); });
}

void Host::send_heartbeats() {
  for (int to = 0; to < w_.params.hosts; ++to) {
    if (to == index_ || w_.rng.chance(w_.faulty.heartbeat_loss)) continue;
    const int copies = w_.faulty.heartbeat_loss > 0 && w_.rng.chance(10) ? 2 : 1;
    for (int n = 0; n < copies; ++n) {
      w_.queue.after(w_.between(0ms, w_.params.net_max), [this, to] {
        Host& peer = w_.host(to);
        if (!w_.network.up(index_, to)) return;
        peer.daemon.post(peer.daemon.life(), [this, &peer] { peer.deliver(ha::event::HeartbeatHeard{id_}); });
      });
    }
  }
}

void Host::read_slots(int disk) {
  if (reading_[disk]) return;
  reading_[disk] = true;
  const int life = daemon.life();
  const Instant began = local();
  w_.disks.access(index_, disk, [this, disk, life, began](bool ok) {
    std::vector<std::uint64_t> contents;
    for (int other = 0; other < w_.params.hosts; ++other) contents.push_back(w_.disks.slot(other, disk));
    daemon.post(life, [this, disk, began, ok, contents] {
      reading_[disk] = false;
      for (int other = 0; other < w_.params.hosts; ++other) {
        if (other == index_) continue;
        const std::uint64_t content = contents.at(static_cast<std::size_t>(other));
        deliver(
            ha::event::SlotRead{w_.host(other).id(), fmt::format("ds{}", disk), ok, content, began, local()});
      }
    });
  });
}

void Host::connect_watch() {
  if (watch_stalled > 0 || !w_.service.reachable(index_) || !w_.rng.chance(50)) return;
  watch_connected_ = true;
  // Most of the time the stream goes on where it broke; else (compaction) it begins with the whole state.
  if (watch_resumable_ && w_.rng.chance(60)) return pump_watch();
  watch_next_ = w_.store.log().size();
  watch_resumable_ = true;
  watch_scheduled_ = true;
  w_.queue.after(
      w_.between(0ms, w_.params.store_max),
      [this, life = daemon.life(), reset = ha::event::StoreReset{w_.store.all(), w_.store.version()}] {
        if (daemon.life() != life) return;
        watch_scheduled_ = false;
        daemon.post(life, [this, reset] { deliver(reset); });
        pump_watch();
      });
}

void Host::pump_watch() {
  if (!daemon.alive() || !watch_connected_ || watch_scheduled_ || watch_next_ == w_.store.log().size())
    return;
  watch_scheduled_ = true;
  w_.queue.after(w_.between(0ms, w_.params.watch_max), [this, life = daemon.life()] {
    if (daemon.life() != life) return;
    watch_scheduled_ = false;
    if (watch_stalled > 0 || !w_.service.reachable(index_)) {
      watch_connected_ = false;
      return;
    }
    ha::event::StoreChanged changed;
    for (; watch_next_ < w_.store.log().size(); ++watch_next_) {
      const auto& batch = w_.store.log().at(watch_next_);
      changed.changes.insert(changed.changes.end(), batch.changes.begin(), batch.changes.end());
      changed.as_of = batch.version;
    }
    daemon.post(life, [this, changed = std::move(changed)] { deliver(changed); });
  });
}

void Host::grant(ha::OpId op, Duration ttl) {
  auto lease = std::make_shared<ha::LeaseNumber>(0);  // shared by the deed and the answer
  const Instant began = local();
  w_.service.request(
      index_, true,
      [this, lease, ttl] {
        *lease = w_.store.grant(w_.service.lease_time(ttl), w_.queue.now());
        return ha::Outcome::done;
      },
      [this, op, lease, began](ha::Outcome outcome) {
        deliver(ha::event::LeaseGranted{op, outcome == ha::Outcome::done, *lease, began});
      });
}

void Host::keep_alive(ha::OpId op, ha::LeaseNumber lease) {
  const Instant began = local();
  w_.service.request(
      index_, false,
      [this, lease] {
        return w_.store.keep_alive(lease, w_.queue.now()) ? ha::Outcome::done : ha::Outcome::refused;
      },
      [this, op, began](ha::Outcome outcome) { deliver(ha::event::LeaseKept{op, outcome, began}); });
}

void Host::commit(ha::OpId op, const ha::TypedTxn& txn) {
  w_.checker.decided(*this, txn);
  auto version = std::make_shared<ha::Version>(0);  // shared by the deed and the answer
  Duration late{};
  for (const auto& write : txn.writes) {
    const auto* motion = std::get_if<record::MotionRecord>(&write.value);
    const bool commits = motion != nullptr && motion->phase == record::MotionRecord::Phase::committed;
    if (commits && w_.strike_commit) late = w_.strike_commit(motion->from, motion->to);
    const auto* relocation = std::get_if<record::RelocationRecord>(&write.value);
    const bool relocates =
        relocation != nullptr && relocation->phase == record::RelocationRecord::Phase::committed;
    if (relocates && w_.strike_commit) late = w_.strike_commit(relocation->host, relocation->host);
  }
  w_.service.request(
      index_, true, [this, txn, version] { return w_.service.commit(index_, txn, *version); },
      [this, op, version](ha::Outcome outcome) { deliver(ha::event::TxnDone{op, outcome, *version}); }, late);
}

void Host::read(ha::OpId op, const std::string& key) {
  auto result = std::make_shared<ha::event::KeyRead>();  // shared by the deed and the answer
  result->op = op;
  w_.service.request(
      index_, false,
      [this, key, result] {
        result->state.key = key;
        result->as_of = w_.store.version();
        if (const auto* entry = w_.store.get(key)) {
          result->state.version = entry->version;
          result->state.value = entry->value;
        }
        return ha::Outcome::done;
      },
      [this, result](ha::Outcome outcome) {
        result->ok = outcome == ha::Outcome::done;
        deliver(*result);
      });
}

void Host::ask_stop(const VmId& vm) {
  w_.trace([&] { return fmt::format("{}: {} is asked to stop", id_.text, vm.text); });
  auto found = processes_.find(vm);
  if (found == processes_.end() || w_.rng.chance(30)) return;  // that guest does not listen
  w_.queue.after(w_.between(500ms, 8s), [this, vm, number = found->second.number] {
    Process* running = process(vm, number);
    if (running != nullptr && running->runs) end_process(vm, ha::ExitKind::guest_shutdown, "");
  });
}

void Host::kill(const VmId& vm, const std::string& why) {
  w_.trace([&] { return fmt::format("{}: {} is killed: {}", id_.text, vm.text, why); });
  auto found = processes_.find(vm);
  if (found == processes_.end()) return;
  auto record = core_->view().vms.find(vm);
  const bool unwanted = record != core_->view().vms.end() && record->second.record.desired == record::Desired::stopped;
  if (unwanted) w_.checker.memory_lost(found->second);  // as far as this host knows
  w_.queue.after(w_.between(1ms, 200ms), [this, vm, number = found->second.number, life = daemon.life()] {
    if (process(vm, number) != nullptr) end_process(vm, ha::ExitKind::killed, "");
  });
}

}  // namespace hf::sim
