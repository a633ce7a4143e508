#pragma once
// Destination: what the host does that a VM comes to: prepares a QEMU that waits for memory, says `ready`, ends it when
// the motion is over, tells the datastore once it runs. That it runs, and under which claim, is the agent's
// (core/ha/agent.hpp): safety: there is one place only that lets a VM run.
//
// | state     | event                                       | next                                 |
// |-----------|---------------------------------------------|--------------------------------------|
// | (none)    | `preparing`, no process here, contact fresh | Prepare -> preparing                 |
// | (none)    | motion `ready`: an earlier life said so     | ends the motion                      |
// | preparing | Prepared                                    | -> prepared; not ok: ends the motion |
// | prepared  | contact fresh                               | swaps the record to `ready`          |
// | prepared  | `ready` with a session that was ours        | ends the motion                      |
// | prepared  | MotionFailed, its QEMU ended                | ends the motion                      |
// | any       | the motion is erased or over                | kills the QEMU                       |
// | any       | arrived, and the agent has it running       | RecordOwner; done: erases the record |
//
// safety: a QEMU that has, or may have, the only memory of a running guest is never ended: only where the view shows
// that no motion to this host is pending and the owner record does not name this host, epoch and a motion. The view
// goes forward only, and both keys come in one swap.
// Pure; owned by the control thread through HostCore.
#include <map>

#include "core/ha/agent.hpp"
#include "core/motion/motion.hpp"

namespace hf::motion {

class Destination {
 public:
  Destination(HostId self, std::function<OpId()> make_op, ha::KeptBug bug = ha::KeptBug::none)
      : self_(std::move(self)), make_op_(make_op), bug_(bug), endings_(std::move(make_op)) {}

  void on(const ha::event::Prepared& prepared, ha::Agent& agent);
  void on(const ha::event::MotionFailed& failed);
  void on(const ha::event::Exited& exited);
  void on(const ha::event::OwnerRecorded& recorded, Instant now);
  // Returns true if the event was its own.
  bool on(const ha::event::TxnDone& done, Instant now);
  // Takes the next step for every VM that comes.
  void reconcile(const ha::AgentContext& context, ha::Agent& agent, Actions& out);

 private:
  struct Coming {
    TaskId id;
    Epoch epoch;  // that it will run with
    bool prepared = false;
    std::string endpoint, token;
    std::uint64_t room_bytes = 0;
    OpId op = 0;
    Instant next_at{};
  };
  // A VM that has arrived, until its record is erased.
  struct Landed {
    Epoch epoch;
    bool recording = false, recorded = false;
    OpId op = 0;
    Instant next_at{};
  };

  void step(const record::MotionRecord& motion, ha::Version version, const ha::AgentContext& context, ha::Agent& agent,
            Actions& out);
  void prepare(const record::MotionRecord& motion, const ha::AgentContext& context, ha::Agent& agent, Actions& out);
  void say_ready(Coming& coming, record::MotionRecord motion, ha::Version version, const ha::AgentContext& context,
                 Actions& out);
  void settle_down(const record::MotionRecord& motion, ha::Version version, const ha::AgentContext& context,
                   ha::Agent& agent, Actions& out);
  void end_unneeded(const ha::AgentContext& context, ha::Agent& agent, Actions& out);
  bool needed(const VmId& vm, Epoch epoch, const View& view) const;

  const HostId self_;
  const std::function<OpId()> make_op_;
  const ha::KeptBug bug_;
  Endings endings_;
  std::map<VmId, Coming> comings_;
  std::map<VmId, Landed> landed_;
};

}  // namespace hf::motion
