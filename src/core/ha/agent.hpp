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
// | claimed by us, this epoch   | paused (disk) | any     | says so, and every 10 s lets it try its disks again       |
// | claimed by us, this epoch   | paused        | running | claims again if the session is new; AbortMotion till it   |
// |                             |               |         | runs                                                      |
// | the same, through a motion  | incoming      | running | claims again if session or guard generation are new;      |
// |                             |               |         | Activate till it runs                                     |
// | anything but the last line  | incoming      | any     | leaves it to motion::Destination                          |
// | claimed by us, this epoch   | held          | any     | leaves it to motion::Source: a commit is sent, or soon is |
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

  void on(const event::MotionAborted& aborted, Instant now);
  void on(const event::Activated& activated, Instant now);

  // The VMs with a process here, for the slot and the status page.
  std::vector<std::pair<VmId, Epoch>> running() const;

  // For the roles of a motion (core/motion).
  bool adopted() const { return adopted_; }
  bool busy(const VmId& vm) const { return busy_.count(vm) != 0; }
  bool has_any_process(const VmId& vm) const { return locals_.count(vm) != 0; }
  bool has_process(const VmId& vm) const;   // one that runs, or is to run
  bool runs(const VmId& vm, Epoch epoch) const;
  // Any process of that epoch.
  bool has_process_of(const VmId& vm, Epoch epoch) const {
    const auto found = locals_.find(vm);
    return found != locals_.end() && found->second.epoch == epoch;
  }
  // The one that was prepared for that motion.
  bool has_process_for(const VmId& vm, const TaskId& motion) const {
    const auto found = locals_.find(vm);
    return found != locals_.end() && found->second.motion == motion;
  }
  // Its process runs under that epoch and nothing is under way with it.
  bool may_leave(const VmId& vm, Epoch epoch) const { return runs(vm, epoch) && !busy(vm) && held_.count(vm) == 0; }
  // safety: a new swap or launch begins only with a live session and fresh contact.
  bool may_begin(const AgentContext& context) const { return context.session.active() && !context.guard.lapsed; }
  // The guest stands still, and a commit is sent or about to be: no swap of the agent's comes in between.
  void hold(const VmId& vm) { held_.insert(vm); }
  void let_go(const VmId& vm) { held_.erase(vm); }
  // safety: nothing is committed, nor can be: lets go of it, and sees that the guest runs. As long as it is ours.
  void go_on(const VmId& vm, Epoch epoch);
  void prepare(const VmId& vm, Epoch epoch, const TaskId& motion) {
    locals_[vm] = local_of(epoch, motion, Process::preparing);
  }
  void prepared(const VmId& vm, Epoch epoch, const std::string& memory_tracker);
  void unprepared(const VmId& vm, Epoch epoch);
  std::vector<std::pair<VmId, Epoch>> incoming() const;
  // REQUIRES: it is one of incoming().
  void kill(const VmId& vm, const std::string& why, Actions& out) { kill(vm, locals_.at(vm), why, out); }

 private:
  enum class Process { launching, running, stopping, killing, paused, preparing, incoming };
  struct Local {
    Epoch epoch;
    TaskId motion;  // that its process was prepared for
    Process process = Process::running;
    std::string memory_tracker;  // of its process, for its status
    Instant kill_at{};          // stopping: when patience ends
    Instant thaw_sent_at{};
    Generation thaw_sent = 0;
    bool kill_sent = false;
    TaskId reset_done;          // the vm.reset task already carried out
    bool may_go_on = false;     // paused: this life knows that nothing of its motion can commit
    bool asked_to_run = false;  // paused, incoming: AbortMotion or Activate is under way
    Instant ask_again_at{};
    Duration stood{};           // running: as Activated says
    std::optional<Generation> confirmed;  // incoming: the guard's when our claim of this life was sent
  };
  static Local local_of(Epoch epoch, TaskId motion, Process process);
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
  void let_paused_run(const VmId& vm, Local& local, const AgentContext& context, Actions& out);
  void activate(const VmId& vm, Local& local, const AgentContext& context, Actions& out);
  bool needs_claim(const VmId& vm, const Local& local, const AgentContext& context) const;
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
  // What it is started with now, and keeps until its next start.
  void give_cpu(const VmId& vm, const View& view, record::OwnerRecord& owner) const;
  // By the commit of a motion, and nothing has claimed it since.
  bool arrived(const VmId& vm, const View& view) const;
  const record::TaskRecord* active_task(const VmId& vm, const View& view) const;
  record::VmStatus status(const VmId& vm, record::VmState state, Epoch epoch, std::string message) const;
  void add_finished_task(const VmId& vm, const Error* error, const AgentContext& context, TypedTxn& txn,
                         const record::VmRecord* changed = nullptr) const;

  const HostId self_;
  const Timing timing_;
  const std::function<OpId()> make_op_;
  const KeptBug bug_;
  bool adopted_ = false;
  std::map<VmId, Local> locals_;
  std::map<OpId, Pending> pending_;
  std::set<VmId> busy_;                    // VMs with a pending swap
  std::set<VmId> held_;                    // by motion::Source
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
