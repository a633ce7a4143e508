#pragma once
// Relocator: what the host does whose task it is to copy a VM's disks, and to delete afterwards what is not needed. The
// record is relocations/<vm>.
//
// | the record          | state      | the guest's disks | event                              | next                |
// |---------------------|------------|-------------------|------------------------------------|---------------------|
// | copying, is ours    | (none)     | old               | came up in this life               | Copy -> copying     |
// | copying, is ours    | (none)     | old, or they wait | was there when this life began     | abandons it         |
// | copying             | copying    | old, then both    | CopyHeld                           | -> held             |
// | copying             | copying    | old, then both    | CopyFailed, silence, cannot commit | lets go -> given_up |
// | copying             | held       | wait; both equal  | no swap of the owner's in flight   | the commit          |
// |                     |            |                   |                                    | -> committing       |
// | copying             | held       | wait; both equal  | patience ends, cannot commit       | lets go -> given_up |
// | copying             | committing | wait; both equal  | refused, unavailable               | lets go -> given_up |
// | copying             | committing | wait; both equal  | unknown                            | abandons it, waits  |
// | copying             | given_up   | old               |                                    | abandons it         |
// | committed, we clean | any        | wait, or are new  |                                    | SettleCopy: new     |
// | abandoned, we clean | any        | wait, or are old  |                                    | SettleCopy: old     |
// | either, we clean    | any        |                   | CopySettled                        | erases the record   |
// | another's, or gone  | any        |                   |                                    | SettleCopy: none    |
//
// Of a motion that took disks along this cleans only: the source the old files, the destination the new ones.
//
// "Lets go" is SettleCopy with the old images, before the record says so: no commit was sent, or it was not done, and
// none will be sent. "Cannot commit": can_commit() of relocation.hpp, or the VM's QEMU has ended.
// Pure; owned by the control thread through HostCore.
#include <map>
#include <set>

#include "core/ha/agent.hpp"
#include "core/motion/relocation.hpp"

namespace hf::motion {

class Relocator {
 public:
  Relocator(HostId self, std::function<OpId()> make_op, ha::KeptBug bug = ha::KeptBug::none)
      : self_(std::move(self)), make_op_(make_op), bug_(bug), abandonings_(std::move(make_op), abandoning) {}

  void on(const ha::event::CopyProgress& progress, const ha::AgentContext& context, Actions& out);
  void on(const ha::event::CopyHeld& held, Instant now);
  void on(const ha::event::CopyFailed& failed, Actions& out);
  void on(const ha::event::CopySettled& settled, Instant now);
  // Returns true if the event was its own.
  bool on(const ha::event::TxnDone& done, Instant now, Actions& out);
  // Takes the next step for every relocation.
  void reconcile(const ha::AgentContext& context, const ha::Agent& agent, Actions& out);

 private:
  enum class State { copying, held, committing, given_up };
  struct Moving {
    record::RelocationRecord relocation;
    State state = State::copying;
    Instant since{};  // of the last sign of life; of the state
    OpId op = 0;      // the commit in flight
    int percent = 0;  // as last written
    Instant percent_at{};
    record::RelocationReport report;
  };
  // What is committed or abandoned, until its record is erased.
  struct Cleaning {
    TaskId id;
    bool settling = false, settled = false;
    std::uint64_t held_us = 0;
    OpId op = 0;
    Instant next_at{};
  };

  using Stored = ha::Stored<record::RelocationRecord>;
  bool still_open(const record::RelocationRecord& relocation, const ha::Agent& agent) const;
  void copy(const Stored& stored, const ha::AgentContext& context, const ha::Agent& agent, Actions& out);
  void begin(const Stored& stored, const ha::AgentContext& context, Actions& out);
  void commit(Moving& moving, const Stored& stored, const ha::AgentContext& context, Actions& out);
  void let_go(Moving& moving, Error why, Actions& out);
  void clean(const Stored& stored, const ha::AgentContext& context, Actions& out);
  void erase(Cleaning& cleaning, const Stored& stored, const ha::AgentContext& context, Actions& out);
  void forget_others(const ha::AgentContext& context, Actions& out);

  const HostId self_;
  const std::function<OpId()> make_op_;
  const ha::KeptBug bug_;
  Endings abandonings_;
  bool looked_ = false;        // the first whole view was looked at
  std::set<TaskId> not_ours_;  // relocations that were there then: an earlier life may have begun them
  std::map<VmId, Moving> movings_;
  std::map<VmId, Cleaning> cleanings_;
};

}  // namespace hf::motion
