#include "daemon/vm_shell.hpp"

#include <set>

#include "base/break_point.hpp"
#include "base/log.hpp"
#include "core/motion/motion.hpp"
#include "daemon/motion_disks.hpp"
#include "sys/datastore/call_worker.hpp"
#include "sys/datastore/datastore.hpp"
#include "sys/process/clock.hpp"

namespace hf::daemon {
namespace {

constexpr Duration kDatastorePatience = 10s;

std::set<std::string> datastores_of(const vm::VmSpec& spec) {
  std::set<std::string> names;
  auto add = [&](const std::string& name) {
    if (!name.empty()) names.insert(name);
  };
  add(spec.datastore);
  for (const auto& disk : spec.disks) add(disk.datastore);
  for (const auto& cdrom : spec.cdroms) add(cdrom.image.substr(0, cdrom.image.find(':')));
  if (spec.direct_kernel) {
    for (const auto* file : {&spec.direct_kernel->kernel, &spec.direct_kernel->initrd}) {
      if (!file->empty() && file->front() != '/') add(file->substr(0, file->find(':')));
    }
  }
  return names;
}

ha::ExitKind to_kind(ExitKind kind) {
  switch (kind) {
    case ExitKind::guest_shutdown: return ha::ExitKind::guest_shutdown;
    case ExitKind::guest_panic: return ha::ExitKind::guest_panic;
    case ExitKind::qemu_crash: return ha::ExitKind::qemu_crash;
    case ExitKind::killed: return ha::ExitKind::killed;
  }
  return ha::ExitKind::qemu_crash;
}

void log_failure(const char* what, const VmId& vm, const Status& status) {
  if (!status.ok()) log(Level::warn, what, {{"vm", vm.text}, {"why", status.error().what}});
}

}  // namespace

VmShell::VmShell(HostId self, Hypervisor& hypervisor, guard::GuardClient& guard, const SharedSurroundings& surroundings,
                 Motions& motions, Mailbox& mailbox)
    : self_(std::move(self)), hypervisor_(hypervisor), guard_(guard), surroundings_(surroundings), motions_(motions),
      mailbox_(mailbox), disks_(self_, hypervisor, surroundings, mailbox) {}

Status VmShell::adopt() {
  // The mailbox, unlike this object, outlives the hypervisor's threads.
  auto on_pause = [&mailbox = mailbox_](const VmPause& pause) {
    log(Level::info, pause.error ? "QEMU has paused a guest." : "A paused guest goes on.",
        {{"vm", pause.vm.text}, {"disk", pause.error ? pause.error->disk : ""},
         {"why", pause.error ? pause.error->text : ""}});
    if (pause.error) {
      const auto& error = *pause.error;
      mailbox.post(ha::event::Paused{pause.vm, pause.epoch, error.disk, error.no_room, error.text});
    } else {
      mailbox.post(ha::event::WentOn{pause.vm, pause.epoch});
    }
  };
  TRY(motions_.begin());
  TRY_ASSIGN(auto running, hypervisor_.adopt([this](const VmExit& exit) { on_exit(exit); }, on_pause));
  ha::event::Adopted adopted;
  for (const auto& vm : running) {
    const bool runs = vm.guest == GuestState::running || vm.guest == GuestState::held;
    // What stands still was stopped for a motion, from here or to here; what does not answer may stand still. Whether
    // one that came may run, its owner record says, also if it ran here before.
    auto& kind = runs ? adopted.running : vm.motion.empty() ? adopted.paused : adopted.incoming;
    kind.push_back({vm.vm, vm.epoch, vm.motion, vm.memory_tracker});
    const std::lock_guard lock(mutex_);
    if (!vm.motion.empty()) incoming_[vm.vm] = vm;
  }
  mailbox_.post(std::move(adopted));
  return {};
}

void VmShell::on_exit(const VmExit& exit) {
  log(Level::info, "QEMU ended.", {{"vm", exit.vm.text}, {"text", exit.text}});
  pool_.submit([this, exit] {
    log_failure("A motion process has not ended.", exit.vm, motions_.end(exit.vm));
    {
      const std::lock_guard lock(mutex_);
      incoming_.erase(exit.vm);
    }
    log_failure("The guard did not drop a VM.", exit.vm, guard_.drop(exit.vm, exit.epoch));
    mailbox_.post(ha::event::Exited{exit.vm, exit.epoch, to_kind(exit.kind), exit.text, exit.motion});
  });
}

Result<LaunchRequest> VmShell::request_for(const record::VmRecord& vm, Epoch epoch) const {
  const auto surroundings = surroundings_.get();
  LaunchRequest request;
  request.vm = vm.id;
  request.epoch = epoch;
  request.spec = vm.spec;
  for (const auto& name : datastores_of(request.spec)) {
    auto found = surroundings->datastores.find(name);
    if (found == surroundings->datastores.end()) {
      return Error{Code::unavailable, "Datastore " + name + " is not usable on host " + self_.text + " now."};
    }
    request.datastore_paths.emplace_back(name, found->second.path);
  }
  for (const auto& nic : request.spec.nics) {
    auto found = surroundings->networks.find(nic.network);
    if (found == surroundings->networks.end()) {
      return Error{Code::unavailable, "Network " + nic.network + " has no bridge on host " + self_.text + "."};
    }
    request.bridges.push_back({nic.network, found->second.bridge, found->second.vlan});
  }
  return request;
}

Status VmShell::confirm_on_datastore(const record::VmRecord& vm, const record::OwnerRecord& owner) const {
  const std::string& home = vm.spec.datastore;
  if (home.empty()) return {};
  const auto surroundings = surroundings_.get();
  auto found = surroundings->datastores.find(home);
  if (found == surroundings->datastores.end()) {
    return Error{Code::unavailable, "Datastore " + home + " is not usable on host " + self_.text + " now."};
  }
  const ha::OwnerFile file{vm.id, owner.host, owner.session, owner.epoch, vm.spec};
  const std::string path = found->second.path;
  datastore::CallWorker worker;
  auto confirmed = worker.run<bool>(kDatastorePatience, [path, file]() -> Result<bool> {
    TRY(datastore::confirm_owner(path, file));
    return true;
  });
  return confirmed.ok() ? Status() : Status(confirmed.error());
}

std::vector<VmShell::Refusal> VmShell::launch_now(const ha::action::Launch& launch, std::string& memory_tracker) {
  auto request = request_for(launch.vm, launch.owner.epoch);
  if (!request.ok()) return {{request.error()}};
  // safety: store, then datastore, then guard; only then the guest's first instruction.
  if (Status confirmed = confirm_on_datastore(launch.vm, launch.owner); !confirmed.ok()) return {{confirmed.error()}};
  if (!launch.owner.cpu.empty()) request->spec.cpu_model = launch.owner.cpu;
  auto running = hypervisor_.launch(*request);
  if (!running.ok()) return {{running.error()}};
  memory_tracker = running->memory_tracker;
  const ha::Admission admission{running->vm, running->epoch, running->cgroup, running->hold_page, launch.owner.guarded};
  const Status admitted = guard_.admit(admission, launch.generation);
  Status begun = admitted.ok() ? hypervisor_.resume(running->vm) : admitted;
  if (begun.ok()) return {};
  log_failure("A VM that may not run could not be killed.", running->vm, hypervisor_.kill(running->vm));
  log_failure("The guard did not drop a VM.", running->vm, guard_.drop(running->vm, running->epoch));
  return {{begun.error(), !admitted.ok()}};
}

void VmShell::carry_out(const ha::action::Launch& launch) {
  pool_.submit([this, launch] {
    ha::event::Launched launched;
    auto refusals = launch_now(launch, launched.memory_tracker);
    launched.vm = launch.vm.id;
    launched.epoch = launch.owner.epoch;
    launched.ok = refusals.empty();
    if (!launched.ok) {
      launched.refused = refusals.front().refused;
      launched.error = refusals.front().error;
      log(Level::warn, "A VM was not launched.", {{"vm", launched.vm.text}, {"why", launched.error.what}});
    }
    mailbox_.post(std::move(launched));
  });
}

void VmShell::carry_out(const ha::action::AskStop& ask) {
  pool_.submit([this, ask] {
    log_failure("A guest could not be asked to stop.", ask.vm, hypervisor_.ask_to_stop(ask.vm));
  });
}

void VmShell::carry_out(const ha::action::Kill& kill) {
  log(Level::info, "A VM is killed.", {{"vm", kill.vm.text}, {"why", kill.why}});
  pool_.submit([this, kill] {
    break_point("daemon.kill");
    log_failure("A motion process has not ended.", kill.vm, motions_.end(kill.vm));
    const Status killed = hypervisor_.kill(kill.vm);
    log_failure("A VM could not be killed.", kill.vm, killed);
  });
}

void VmShell::carry_out(const ha::action::Reset& reset) {
  pool_.submit([this, reset] { log_failure("A VM could not be reset.", reset.vm, hypervisor_.reset(reset.vm)); });
}

void VmShell::carry_out(const ha::action::Continue& go_on) {
  pool_.submit([this, go_on] {
    log_failure("A paused VM could not be continued.", go_on.vm, hypervisor_.continue_paused(go_on.vm, go_on.epoch));
  });
}

void VmShell::carry_out(const ha::action::Thaw& thaw) {
  log(Level::info, "A frozen VM is still ours and goes on.", {{"vm", thaw.vm.text}});
  pool_.submit([this, thaw] {
    log_failure("The guard did not thaw a VM.", thaw.vm, guard_.thaw(thaw.vm, thaw.epoch, thaw.generation));
  });
}

Result<Motions::Listening> VmShell::prepare_now(const ha::action::Prepare& prepare, std::string& memory_tracker) {
  break_point("daemon.prepare");
  TRY_ASSIGN(LaunchRequest request, request_for(prepare.vm, prepare.epoch));
  std::vector<motion::IncomingDisk> disks;
  if (motion::takes_disks(prepare.motion)) {
    TRY_ASSIGN(disks, make_incoming_disks(prepare, *surroundings_.get()));
    // safety: before the commit: whoever starts the VM from there finds it.
    TRY(confirm_on_datastore(prepare.vm, prepare.owner));
  }
  request.motion = prepare.motion.id;
  if (!prepare.owner.cpu.empty()) request.spec.cpu_model = prepare.owner.cpu;
  // safety: nothing is admitted: its hold page lets no write pass, and its guest waits for memory.
  TRY_ASSIGN(RunningVm waiting, hypervisor_.launch(request));
  memory_tracker = waiting.memory_tracker;
  {
    const std::lock_guard lock(mutex_);
    incoming_[prepare.vm.id] = std::move(waiting);
  }
  auto listening = motions_.receive(prepare.motion, prepare.vm.spec, std::move(disks));
  break_point("daemon.prepared");
  if (!listening.ok()) {
    log_failure("A QEMU that waits in vain could not be killed.", prepare.vm.id, hypervisor_.kill(prepare.vm.id));
  }
  return listening;
}

void VmShell::carry_out(const ha::action::Prepare& prepare) {
  pool_.submit([this, prepare] {
    ha::event::Prepared prepared;
    prepared.vm = prepare.vm.id;
    prepared.id = prepare.motion.id;
    auto listening = prepare_now(prepare, prepared.memory_tracker);
    prepared.ok = listening.ok();
    if (prepared.ok) {
      prepared.endpoint = listening->endpoint;
      prepared.token = listening->token;
      prepared.room_bytes = room_for_disks(prepare, *surroundings_.get());
    } else {
      prepared.error = listening.error();
      log(Level::warn, "A VM cannot come here.", {{"vm", prepared.vm.text}, {"why", prepared.error.what}});
    }
    mailbox_.post(std::move(prepared));
  });
}

void VmShell::carry_out(const ha::action::Send& send) {
  pool_.submit([this, send] {
    break_point("daemon.send");
    const Status started = motions_.send(send.motion, outgoing_disks(send));
    if (!started.ok()) mailbox_.post(ha::event::MotionFailed{send.vm.id, send.motion.id, started.error()});
  });
}

void VmShell::carry_out(const ha::action::AbortMotion& abort) {
  pool_.submit([this, abort] {
    // safety: its motion process first: what it still does to the guest must not meet a guest that runs.
    Status goes_on = motions_.end(abort.vm);
    if (goes_on.ok()) goes_on = hypervisor_.resume(abort.vm);
    if (!goes_on.ok() && goes_on.code() == Code::denied) {
      log_failure("A VM that never ran could not be killed.", abort.vm, hypervisor_.kill(abort.vm));
    }
    log_failure("A guest that a motion had stopped does not go on.", abort.vm, goes_on);
    mailbox_.post(ha::event::MotionAborted{abort.vm, abort.epoch, goes_on.ok()});
  });
}

void VmShell::carry_out(const ha::action::CommittedMotion& committed) {
  break_point("daemon.committed");
  // At once, before the Kill that follows ends its process: one line into an empty socket does not block.
  motions_.tell_committed(committed.vm, committed.id, committed.version);
}

std::vector<VmShell::Refusal> VmShell::activate_now(const ha::action::Activate& activate) {
  RunningVm waiting;
  {
    const std::lock_guard lock(mutex_);
    auto found = incoming_.find(activate.vm.id);
    if (found == incoming_.end() || found->second.epoch != activate.owner.epoch) {
      return {{Error{Code::not_found, "Nothing waits here for VM " + activate.vm.spec.name + "."}}};
    }
    waiting = found->second;
  }
  const ha::Admission admission{waiting.vm, waiting.epoch, waiting.cgroup, waiting.hold_page, activate.owner.guarded};
  break_point("daemon.activate");
  // safety: admitted under the generation of the claim or commit, and only then the first instruction.
  const Status admitted = guard_.admit(admission, activate.generation);
  if (!admitted.ok()) return {{admitted.error(), true}};
  break_point("daemon.admitted");
  if (const Status begun = hypervisor_.resume(waiting.vm); !begun.ok()) return {{begun.error()}};
  break_point("daemon.resumed");
  return {};
}

void VmShell::carry_out(const ha::action::Activate& activate) {
  pool_.submit([this, activate] {
    const auto loaded = motions_.loaded_at(activate.vm.id);
    const auto refusals = activate_now(activate);
    ha::event::Activated activated;
    activated.vm = activate.vm.id;
    activated.epoch = activate.owner.epoch;
    activated.ok = refusals.empty();
    if (activated.ok && loaded) activated.stood = sys::boot_now() - *loaded;
    if (!activated.ok) {
      activated.refused = refusals.front().refused;
      activated.error = refusals.front().error;
      log(Level::warn, "A VM that has arrived does not run yet.",
          {{"vm", activated.vm.text}, {"why", activated.error.what}});
    }
    const bool runs = activated.ok;
    mailbox_.post(std::move(activated));
    if (runs) log_failure("A motion process has not ended.", activate.vm.id, motions_.end(activate.vm.id));
  });
}

void VmShell::carry_out(const ha::action::RecordOwner& record) {
  pool_.submit([this, record] {
    break_point("daemon.record");
    const Status told = confirm_on_datastore(record.vm, record.owner);
    log_failure("The owner of a VM was not written on its datastore.", record.vm.id, told);
    mailbox_.post(ha::event::OwnerRecorded{record.vm.id, record.owner.epoch, told.ok()});
  });
}

}  // namespace hf::daemon
