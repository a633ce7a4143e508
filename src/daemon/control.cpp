#include "daemon/control.hpp"

#include <pthread.h>

#include "base/log.hpp"
#include "sys/process/clock.hpp"

namespace hf::daemon {

Control::Control(HostId self, ha::Timing timing, std::uint64_t seed, Parts parts)
    : parts_(std::move(parts)),
      timing_(timing),
      core_(std::move(self), timing, seed),
      share_check_(timing),
      thread_([this] { run(); }) {
  pthread_setname_np(thread_.native_handle(), "hf-control");
}

Control::~Control() {
  stopping_ = true;
  thread_.join();
}

ControlStatus Control::status() const {
  std::lock_guard lock(mutex_);
  return status_;
}

void Control::run() {
  Instant next_tick = sys::boot_now();
  while (!stopping_) {
    const Duration patience = std::max<Duration>(next_tick - sys::boot_now(), 0ns);
    bool view_changed = false;
    for (auto& event : parts_.mailbox.take(patience)) {
      if (auto* read = std::get_if<ha::event::SlotRead>(&event)) {
        share_check_.on(*read);
        // safety (proof of inability): a slot on another storage stands still for ever; it proves nothing.
        if (is_not_shared(read->datastore)) read->ok = false;
      }
      step(event);
      view_changed = view_changed || std::holds_alternative<ha::event::StoreReset>(event) ||
                     std::holds_alternative<ha::event::StoreChanged>(event);
    }
    if (view_changed) after_view_change();
    if (sys::boot_now() < next_tick) continue;
    step(ha::event::Tick{});
    check_sharing();
    publish();
    next_tick = sys::boot_now() + timing_.tick;
  }
}

void Control::step(const ha::Event& event) {
  for (const auto& action : core_.step(event, sys::boot_now())) carry_out(action);
}

void Control::carry_out(const ha::Action& action) {
  std::visit(
      [this](const auto& what) {
        using What = std::decay_t<decltype(what)>;
        if constexpr (std::is_same_v<What, ha::action::Renewed>) {
          guard_pool_.submit([this, what] {
            const Status told = parts_.guard.renewed(what.began, what.session);
            if (!told.ok()) log(Level::warn, "The guard did not hear of a renewal.", {{"why", told.error().what}});
          });
        } else if constexpr (std::is_same_v<What, ha::action::Emit>) {
          parts_.store.emit(what.event);
        } else if constexpr (requires { parts_.store.carry_out(what); }) {
          parts_.store.carry_out(what);
        } else {
          parts_.vms.carry_out(what);
        }
      },
      action);
}

void Control::check_sharing() {
  share_check_.look_at(core_.view(), core_.self(), sys::boot_now());
  const auto& now = share_check_.verdicts();
  if (now == not_shared_) return;
  std::map<std::string, std::string> barred;
  for (const auto& [id, verdict] : now) {
    if (!verdict.usable) barred[id] = verdict.text;
    auto before = not_shared_.find(id);
    if (before != not_shared_.end() && before->second == verdict) continue;
    record::EventRecord event;
    event.severity = "error";
    event.kind = "datastore.not_shared";
    event.subject = id;
    event.text = verdict.text;
    parts_.store.emit(event);
  }
  not_shared_ = now;
  parts_.on_barred(std::move(barred));
}

void Control::after_view_change() {
  const ha::View& view = core_.view();
  std::map<std::string, SlotReader::Target> targets;
  auto self = view.hosts.find(core_.self());
  for (const auto& [host, stored] : view.hosts) {
    if (host == core_.self() || self == view.hosts.end()) continue;
    for (const auto& id : stored.record.slot_datastores) {
      auto mounted = self->second.record.datastores.find(id);
      if (mounted != self->second.record.datastores.end()) mounted_[id] = mounted->second;
      // One that is barred is read on, to see when it is mended.
      else if (!is_not_shared(id)) continue;
      targets[id].path = mounted_[id];
      targets[id].hosts.push_back(host);
    }
  }
  parts_.slots.set_targets(targets);
  parts_.on_view(view);
}

void Control::publish() {
  ControlStatus next;
  next.leader = core_.is_leader();
  next.brake = core_.leader().brake();
  next.health = core_.leader().health();
  next.store_contact = core_.session().active();
  next.guard_lapsed = core_.guard().lapsed;
  next.frozen_vms = core_.guard().frozen.size();
  for (const auto& [host, stored] : core_.view().hosts) {
    if (host != core_.self()) next.heartbeat_addresses.push_back(stored.record.heartbeat_address);
  }
  std::lock_guard lock(mutex_);
  status_ = std::move(next);
}

}  // namespace hf::daemon
