#include "core/vm/lifecycle.hpp"

#include <fmt/format.h>

#include <array>

namespace hf::vm {
using record::Desired;
using record::OwnerRecord;
using record::TaskKind;
using record::VmState;

namespace {

// Why a command is refused; `ok`: it is not.
enum class Verdict {
  ok,
  runs,
  is_off,
  starts,
  not_up,
  stops,
  to_stop,
  leaves,
  waits,
  frozen,
  thaws,
  recovers,
  off_first,
  off_frozen
};

struct Refusal {
  Verdict verdict;
  Code code;
  const char* text;  // {0}: the VM's name, {1}: " on <host>" or nothing
};
constexpr std::array kRefusals = {
    Refusal{Verdict::runs, Code::invalid, "VM {0} is running{1} already."},
    Refusal{Verdict::is_off, Code::invalid, "VM {0} is not running. Start it: holdfast vm start {0}."},
    Refusal{Verdict::starts, Code::conflict,
            "VM {0} is being started already. Watch it: holdfast vm show {0}."},
    Refusal{Verdict::not_up, Code::conflict,
            "VM {0} is not running yet. Try again when it is: holdfast vm show {0}."},
    Refusal{
        Verdict::stops, Code::conflict,
        "VM {0} is stopping{1} already. Wait until it has stopped, or end it at once: holdfast vm kill {0}."},
    Refusal{Verdict::to_stop, Code::conflict,
            "VM {0} still runs{1} and is to stop. Stop it first (holdfast vm stop {0}), then start it."},
    Refusal{Verdict::leaves, Code::conflict,
            "VM {0} is stopping{1}. Try again when it has stopped: holdfast vm show {0}."},
    Refusal{
        Verdict::waits, Code::conflict,
        "VM {0} is paused{1} by a disk error and goes on by itself once that is mended. See what is wrong: "
        "holdfast vm show {0}."},
    Refusal{
        Verdict::frozen, Code::conflict,
        "VM {0} is frozen{1}: its host lost contact. It goes on there or is restarted elsewhere by itself."},
    Refusal{Verdict::thaws, Code::conflict,
            "VM {0} is frozen{1} and cannot answer. Wait until it goes on, or end it at once: holdfast vm "
            "kill {0}."},
    Refusal{Verdict::recovers, Code::conflict,
            "VM {0} crashed and is restarted by itself. Watch it: holdfast vm show {0}."},
    Refusal{Verdict::off_first, Code::invalid, "VM {0} is {2}{1}. Stop it first: holdfast vm stop {0}."},
    Refusal{Verdict::off_frozen, Code::invalid, "VM {0} is frozen{1}. End it first: holdfast vm kill {0}."},
};

// clang-format off
using Row = std::array<Verdict, kCommands>;
using enum Verdict;
//                                     start     stop    kill    reset   remove      edit  migrate   relocate
constexpr std::array<std::array<Row, 2>, kVmStates> kTable = {{
    /* stopped,  wanted stopped */ {{{{ok,       is_off, is_off, is_off, ok,         ok,   is_off,    ok}},
    /*           wanted running */   {{starts,   ok,     ok,     not_up, off_first,  ok,   not_up,    not_up}}}},
    /* starting, wanted stopped */ {{{{leaves,   stops,  ok,     leaves, off_first,  ok,   leaves,    leaves}},
    /*           wanted running */   {{starts,   ok,     ok,     not_up, off_first,  ok,   not_up,    not_up}}}},
    /* running,  wanted stopped */ {{{{to_stop,  ok,     ok,     leaves, off_first,  ok,   leaves,    leaves}},
    /*           wanted running */   {{runs,     ok,     ok,     ok,     off_first,  ok,   ok,        ok}}}},
    /* paused,   wanted stopped */ {{{{to_stop,  ok,     ok,     leaves, off_first,  ok,   leaves,    leaves}},
    /*           wanted running */   {{waits,    ok,     ok,     ok,     off_first,  ok,   waits,     ok}}}},
    /* frozen,   wanted stopped */ {{{{thaws,    thaws,  ok,     thaws,  off_frozen, ok,   frozen,    frozen}},
    /*           wanted running */   {{frozen,   thaws,  ok,     thaws,  off_frozen, ok,   frozen,    frozen}}}},
    /* stopping, wanted stopped */ {{{{leaves,   stops,  ok,     leaves, leaves,     ok,   leaves,    leaves}},
    /*           wanted running */   {{leaves,   ok,     ok,     leaves, leaves,     ok,   leaves,    leaves}}}},
    /* crashed,  wanted stopped */ {{{{ok,       is_off, is_off, is_off, ok,         ok,   is_off,    ok}},
    /*           wanted running */   {{recovers, ok,     ok,     not_up, off_first,  ok,   recovers,  recovers}}}},
    /* failed,   wanted stopped */ {{{{ok,       is_off, is_off, is_off, ok,         ok,   is_off,    ok}},
    /*           wanted running */   {{ok,       ok,     ok,     not_up, off_first,  ok,   not_up,    not_up}}}},
}};
// clang-format on

// How "VM web is ..." reads; a VM that is wanted running but does not run is on its way.
std::string_view said(VmState state) {
  switch (state) {
    case VmState::stopped:
      return "waiting for a host";
    case VmState::starting:
      return "starting";
    case VmState::running:
      return "running";
    case VmState::paused:
      return "paused";
    case VmState::frozen:
      return "frozen";
    case VmState::stopping:
      return "stopping";
    case VmState::crashed:
      return "being restarted after a crash";
    case VmState::failed:
      return "wanted running, though its last start failed";
  }
  return "?";
}

bool is_down(VmState state) {
  return state == VmState::stopped || state == VmState::crashed || state == VmState::failed;
}

Error refusal(Verdict verdict, const std::string& name, VmState state, const std::string& host) {
  const std::string where = host.empty() || is_down(state) ? "" : " on " + host;
  for (const Refusal& candidate : kRefusals) {
    if (candidate.verdict == verdict) {
      return Error{candidate.code, fmt::format(fmt::runtime(candidate.text), name, where, said(state))};
    }
  }
  return Error{Code::invalid, "VM " + name + " cannot do this now."};
}

bool has_owner(const OwnerRecord* owner) {
  return owner != nullptr && owner->phase != OwnerRecord::Phase::released;
}

Status check_task(Command command, const record::VmRecord& vm, const record::TaskRecord* active) {
  if (vm.active_task.empty()) return {};
  const bool is_known = active != nullptr && active->id == vm.active_task;
  const bool ends_with_it =
      is_known && (active->kind == TaskKind::vm_start || active->kind == TaskKind::vm_stop ||
                   active->kind == TaskKind::vm_reset || active->kind == TaskKind::vm_migrate);
  if (command == Command::kill && ends_with_it) return {};
  const std::string kind = is_known ? std::string(record::name_of(active->kind)) : "another command";
  const bool can_be_cancelled = is_known && active->kind == TaskKind::vm_migrate;
  return Error{Code::conflict,
               fmt::format("VM {} is busy: {} (task {}) is under way. Try again when it has ended{}.", vm.spec.name,
                           kind, vm.active_task.text,
                           can_be_cancelled ? ", or cancel it: holdfast task cancel " + vm.active_task.text : "")};
}

}  // namespace

Status check(Command command, const record::VmRecord& vm, const record::VmStatus* status,
             const record::OwnerRecord* owner, const record::TaskRecord* active) {
  TRY(check_task(command, vm, active));
  const VmState state = status != nullptr ? status->state : VmState::stopped;
  const Verdict verdict = kTable.at(static_cast<std::size_t>(state))
                              .at(vm.desired == Desired::running ? 1 : 0)
                              .at(static_cast<std::size_t>(command));
  const bool ends_it = command == Command::stop || command == Command::kill;
  const bool needs_it_off = command == Command::start || command == Command::remove || command == Command::relocate;
  if (has_owner(owner) && is_down(state)) {
    // The status says it does not run, yet a host has the right to run it: so it may.
    if (ends_it) return {};
    // safety: a VM that has an owner is not given to another and its disks are not removed, whatever the
    // status says.
    if (needs_it_off && verdict == Verdict::ok) {
      return Error{Code::conflict,
                   fmt::format("Host {} still has the right to run VM {}. Try again in a moment, or end it: "
                               "holdfast vm kill {}.",
                               owner->host.text, vm.spec.name, vm.spec.name)};
    }
  }
  if (verdict == Verdict::ok) return {};
  const std::string host = status != nullptr && !status->host.empty() ? status->host.text
                           : owner != nullptr                         ? owner->host.text
                                                                      : "";
  return refusal(verdict, vm.spec.name, state, host);
}

std::string edit_waits_for_start(const record::VmRecord& vm, const record::VmStatus* status,
                                 const record::OwnerRecord* owner) {
  const bool is_up = status != nullptr && !is_down(status->state);
  if (!is_up && !has_owner(owner) && vm.desired == Desired::stopped) return "";
  return "VM " + vm.spec.name +
         " is not stopped: the change of its hardware takes effect at its next start. Its HA settings "
         "take effect at once.";
}

bool has_same_hardware(const VmSpec& before, const VmSpec& after) {
  VmSpec seen = after;
  seen.description = before.description;
  seen.stop_timeout_seconds = before.stop_timeout_seconds;
  seen.ha = before.ha;
  return seen == before;
}

Status check_edit(const VmSpec& before, const VmSpec& after) {
  std::string why;
  auto refuse = [&](const std::string& sentence) { why += (why.empty() ? "" : "\n") + sentence; };
  if (before.name != after.name) refuse("name: A VM cannot be renamed.");
  if (before.datastore != after.datastore) refuse("datastore: The VM's folder cannot be moved by an edit.");
  if (before.disks != after.disks) {
    refuse("disks: Disks cannot be added, removed or changed by an edit: their images are made with the VM.");
  }
  if (before.cloud_init != after.cloud_init) {
    refuse("cloud_init: The seed is made when the VM is created. Change the guest itself.");
  }
  if (why.empty()) return {};
  return Error{Code::invalid, why};
}

}  // namespace hf::vm
