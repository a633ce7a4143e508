#pragma once
// Source: what the host does that a VM leaves: has it copied, commits, tells its motion process what became of it.
//
// | state          | the guest    | event                                | next                                      |
// |----------------|--------------|--------------------------------------|-------------------------------------------|
// | (none)         | runs         | motion `ready` in this life, VM free | Send -> sending                           |
// | sending        | runs, mostly | MotionReady                          | -> asked                                  |
// | sending        | runs, mostly | MotionFailed, no progress            | AbortMotion, ends the motion              |
// | asked          | stands still | the VM has no swap in flight         | sends the commit -> committing            |
// | asked          | stands still | MotionFailed, or patience ends       | AbortMotion, ends the motion              |
// | sending, asked |              | motion erased or over                | AbortMotion                               |
// | committing     | stands still | done, or seen in the view            | CommittedMotion; the agent kills its QEMU |
// | committing     | stands still | refused, unavailable                 | AbortMotion, ends the motion              |
// | committing     | stands still | unknown                              | reads owners/<vm> -> uncertain            |
// | uncertain      | stands still | read: the record has changed         | it has arrived: as done; else as refused  |
// | uncertain      | stands still | read: unchanged                      | writes it again, as it is (the fence)     |
// | uncertain      | stands still | the fence is done                    | as refused                                |
// | uncertain      | stands still | the fence's outcome is anything else | reads again                               |
//
// A daemon that finds a motion `ready` that it did not send ends it: nobody knows how far the one before has come.
// Pure; owned by the control thread through HostCore.
#include <map>
#include <set>

#include "core/ha/agent.hpp"
#include "core/motion/motion.hpp"

namespace hf::motion {

class Source {
 public:
  Source(HostId self, std::function<OpId()> make_op, ha::KeptBug bug = ha::KeptBug::none)
      : self_(std::move(self)), make_op_(make_op), bug_(bug), endings_(std::move(make_op)) {}

  void on(const ha::event::MotionProgress& progress, const ha::AgentContext& context, Actions& out);
  void on(const ha::event::MotionReady& ready, const ha::AgentContext& context, ha::Agent& agent);
  void on(const ha::event::MotionFailed& failed, ha::Agent& agent);
  void on(const ha::event::MotionFinished& finished, Instant now);
  // Each returns true if the event was its own.
  bool on(const ha::event::TxnDone& done, const ha::AgentContext& context, ha::Agent& agent, Actions& out);
  bool on(const ha::event::KeyRead& read, const ha::AgentContext& context, ha::Agent& agent, Actions& out);
  // Takes the next step for every VM that leaves.
  void reconcile(const ha::AgentContext& context, ha::Agent& agent, Actions& out);

 private:
  enum class State { sending, asked, committing, uncertain };
  struct Leaving {
    TaskId id;
    Epoch epoch;
    State state = State::sending;
    Instant since{};          // of the last sign of life; of the state
    OpId op = 0;              // the swap or the read in flight
    bool reading = false;     // it is a read
    Instant next_at{};        // uncertain: when to read again
    ha::Version insisted = 0; // committing, uncertain: the version of owners/<vm> that the commit insists on
    int percent = 0;          // as last written
    Instant percent_at{};
  };
  using Leavings = std::map<VmId, Leaving>;
  // What a motion took, until its task says so. The destination ends the task first.
  struct Report {
    record::MotionReport text;
    OpId op = 0;
    Instant next_at{}, until{};
  };

  void begin_new(const ha::AgentContext& context, ha::Agent& agent, Actions& out);
  // False: it is over.
  bool step(const VmId& vm, Leaving& leaving, const ha::AgentContext& context, ha::Agent& agent, Actions& out);
  // Nullopt: the commit cannot be sent now.
  std::optional<TypedTxn> commit(const VmId& vm, const Leaving& leaving, const ha::AgentContext& context) const;
  // Its commit, as the record shows.
  static bool is_done(const Leaving& leaving, const record::OwnerRecord& owner);
  void fence(const VmId& vm, Leaving& leaving, const record::OwnerRecord& unchanged, Actions& out);
  void read_owner(const VmId& vm, Leaving& leaving, Actions& out);
  // safety: only if no commit was sent, or it can never be done.
  void give_up(Leavings::iterator leaving, std::optional<Error> why, ha::Agent& agent);
  void committed(Leavings::iterator leaving, ha::Version version, ha::Agent& agent, Actions& out);
  Leavings::iterator with_op(OpId op);
  void tell_reports(const ha::AgentContext& context, Actions& out);

  const HostId self_;
  const std::function<OpId()> make_op_;
  const ha::KeptBug bug_;
  Endings endings_;
  bool looked_ = false;         // the first whole view was looked at
  std::set<TaskId> not_ours_;   // motions that were `ready` then: an earlier life may have sent them
  Leavings leavings_;
  std::map<TaskId, Report> reports_;
};

}  // namespace hf::motion
