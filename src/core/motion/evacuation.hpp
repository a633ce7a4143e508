#pragma once
// Evacuation: the leader's part of host maintenance: has the VMs of a host with a maintenance record moved away, says
// what it waits for, and notes when the host is empty. It asks for motions as a user does, by vm.migrate tasks
// (requested_by "maintenance of <host>"), which the planner queues, places and begins.
//
// | maintenance/<host> | a VM that the host owns                         | the leader                               |
// |--------------------|-------------------------------------------------|------------------------------------------|
// | there              | can move, has no task                           | writes its vm.migrate task               |
// | there              | has such a task, or is on its way               | waits                                    |
// | there              | its last such task failed less than 30 s ago    | the reason goes into the message         |
// | there              | cannot move now (checks.hpp), or has other work | the reason goes into the message         |
// | there              | there is none, and no motion from or to it      | state `in`                               |
// | erased             | has such a task, and no motion has begun        | ends the task; motions under way go on   |
//
// A VM for which there is no room gets no task: it would only fail, again and again.
// Any number of hosts may believe to be leader: every swap insists on the leader's and the maintenance record.
// Pure; owned by the leader.
#include <functional>
#include <map>
#include <string>

#include "core/motion/planner.hpp"

namespace hf::motion {

class Evacuation {
 public:
  Evacuation(std::function<OpId()> make_op, std::function<TaskId()> make_task)
      : make_op_(std::move(make_op)), make_task_(std::move(make_task)) {}

  // REQUIRES: this host is leader; `planner` has had its tick.
  void tick(const PlannerContext& context, const Planner& planner, Actions& out);
  // Returns true if the event was its own.
  bool on(const ha::event::TxnDone& done);

 private:
  using Maintenance = Stored<record::MaintenanceRecord>;
  struct Tried {
    TaskId task;
    Instant retry_at{};  // set once it is seen to have failed
  };
  struct Round;  // what is known and found in one tick

  void evacuate(const Maintenance& maintenance, Round& round, Actions& out);
  // Why the VM stays for now, a sentence or several; empty: it is on its way, or soon will be.
  std::string send_away(const VmId& vm, const Maintenance& maintenance, Round& round, Actions& out);
  void ask(const Stored<record::VmRecord>& vm, const Maintenance& maintenance, Round& round, Actions& out);
  std::string failed_lately(const VmId& vm, const Round& round);
  void call_off(Round& round, Actions& out);
  bool in_flight(const std::string& key, Instant now) const;
  void send(const std::string& key, TypedTxn txn, Instant now, Actions& out);

  const std::function<OpId()> make_op_;
  const std::function<TaskId()> make_task_;
  Instant look_at_{};
  std::map<VmId, Tried> tried_;
  std::map<OpId, std::string> ops_;
  std::map<std::string, Instant> busy_until_;  // by the key that a swap in flight changes
};

}  // namespace hf::motion
