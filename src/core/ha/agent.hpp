#pragma once
// Agent: what a host does about the VMs it owns, has been given, or finds running: claim, launch, thaw, stop, kill,
// release. It compares the store's records with the local processes and takes the next step; every step may be
// repeated.
//
// | owners/<vm> says            | local process | wanted  | the agent                                                 |
// |-----------------------------|---------------|---------|-----------------------------------------------------------|
// | assigned to us              | none          | running | claims (swap), then launches that epoch                   |
// | assigned to us              | none          | stopped | releases                                                  |
// | claimed by us, this epoch   | running       | running | claims again if the session is new or it is frozen; thaws |
// | claimed by us, this epoch   | running       | stopped | asks to stop, kills after the time limit                  |
// | claimed by us, this epoch   | paused        | any     | says so, and every 10 s lets it try its disks again       |
// | claimed by us               | none          | running | restarts in place with the next epoch, within limits      |
// | claimed by us               | none          | stopped | releases                                                  |
// | anything else               | any           | any     | kills: the right to run is elsewhere                      |
//
// Pure; owned by the control thread through HostCore.
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/ha/events.hpp"
#include "core/ha/pause.hpp"
#include "core/ha/session.hpp"
#include "core/ha/timing.hpp"

namespace hf::ha {

// What the agent needs to know besides its own state.
struct AgentContext {
  const View& view;
  const Session& session;
  const event::GuardReport& guard;
  Instant now;
};

class Agent {
 public:
  Agent(HostId self, Timing timing, std::function<OpId()> make_op, KeptBug bug = KeptBug::none)
      : self_(std::move(self)), timing_(timing), make_op_(std::move(make_op)), bug_(bug) {}

  void on(const event::Adopted& adopted);
  void on(const event::Launched& launched);
  // Tells of each VM that runs again: how long it was frozen.
  void on(const event::GuardReport& report, const AgentContext& context, Actions& out);
  void on(const event::Exited& exited, const AgentContext& context, Actions& out);
  void on(const event::Paused& paused, Instant now);
  void on(const event::WentOn& went_on, Instant now);
  // Each returns true if the event was the agent's.
  bool on(const event::TxnDone& done, const AgentContext& context, Actions& out);
  bool on(const event::KeyRead& read, const AgentContext& context, Actions& out);
  // Takes the next step for every VM.
  void reconcile(const AgentContext& context, Actions& out);

  // The VMs with a process here, for the slot and the status page.
  std::vector<std::pair<VmId, Epoch>> running() const;

 private:
  enum class Process { launching, running, stopping, killing };
  struct Local {
    Epoch epoch;
    Process process = Process::running;
    Instant kill_at{};          // stopping: when patience ends
    Instant thaw_sent_at{};
    Generation thaw_sent = 0;
    bool kill_sent = false;
    TaskId reset_done;          // the vm.reset task already carried out
  };
  enum class Kind { claim, reclaim, release, finish };
  struct Pending {
    Kind kind = Kind::claim;
    VmId vm;
    Generation generation = 0;  // the guard's when the swap was sent
    bool was_frozen = false;
    record::OwnerRecord written;
    bool reading = false;       // outcome unknown, the key is being read
    Instant read_again_at{};    // the read failed; 0: none is due
  };
  struct Crashes {
    std::vector<Instant> times;
    std::string last;
  };

  void reconcile_vm(const VmId& vm, const AgentContext& context, Actions& out);
  void with_process(const VmId& vm, Local& local, const AgentContext& context, Actions& out);
  void without_process(const VmId& vm, const AgentContext& context, Actions& out);
  void keep_running(const VmId& vm, Local& local, const AgentContext& context, Actions& out);
  // Lets a paused guest try its disks again when that is due.
  void continue_paused(const VmId& vm, const Local& local, const AgentContext& context, Actions& out);
  void bring_down(const VmId& vm, Local& local, const AgentContext& context, Actions& out);
  void restart_in_place(const VmId& vm, const AgentContext& context, Actions& out);

  void claim(const VmId& vm, Epoch epoch, Kind kind, const std::string& reason, const AgentContext& context,
             Actions& out);
  // Gives the right back. `status` says why; a task of the VM under way ends with `error` or, without one, well.
  void release(const VmId& vm, record::VmStatus status, const Error* error, const AgentContext& context, Actions& out);
  // Writes status "running" or "paused" and ends the vm.start or vm.reset under way, where the store does not say so
  // yet.
  void report_up(const VmId& vm, Local& local, const AgentContext& context, Actions& out);
  void settle(const Pending& pending, bool done, const AgentContext& context, Actions& out);
  void send(Pending pending, TypedTxn txn, Actions& out);
  void kill(const VmId& vm, Local& local, const std::string& why, Actions& out);

  bool owned(const VmId& vm, const View& view) const;
  bool is_guarded(const VmId& vm, const View& view) const;
  bool may_begin(const AgentContext& context) const;
  const record::TaskRecord* active_task(const VmId& vm, const View& view) const;
  record::VmStatus status(const VmId& vm, record::VmState state, Epoch epoch, std::string message) const;
  void add_finished_task(const VmId& vm, const Error* error, const AgentContext& context, TypedTxn& txn,
                         record::VmRecord* changed = nullptr) const;

  const HostId self_;
  const Timing timing_;
  const std::function<OpId()> make_op_;
  const KeptBug bug_;
  bool adopted_ = false;
  std::map<VmId, Local> locals_;
  std::map<OpId, Pending> pending_;
  std::set<VmId> busy_;                    // VMs with a pending swap
  std::map<VmId, Instant> not_before_;     // after a refused or failed swap
  std::map<VmId, Crashes> crashes_;
  std::map<VmId, Pause> pauses_;           // of the epoch that it names, also before that is known to run here
  std::map<VmId, std::pair<Epoch, ExitKind>> last_exit_;   // of that epoch; an older one says nothing
  std::map<VmId, std::pair<Epoch, Error>> launch_error_;
  struct FrozenSince {
    Instant at{};
    bool at_least = false;  // it was frozen already when this daemon heard of it first
  };
  std::map<VmId, FrozenSince> frozen_;
  bool guard_heard_ = false;
};

}  // namespace hf::ha
