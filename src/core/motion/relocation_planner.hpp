#pragma once
// RelocationPlanner: the leader's part of relocations: begins what vm.migrate tasks with a datastore (and no host) ask
// for, as far as the limits let it, and ends what cannot go on. Any number of hosts may believe to be leader: beginning
// is a swap that insists on the leader's record; ending only takes away what a commit insists on.
//
// | relocations/<vm>                              | the planner                                |
// |-----------------------------------------------|--------------------------------------------|
// | none, a task waits, a reason against it       | ends the task with every reason            |
// | none, a task waits, the limits are reached    | leaves it queued; the oldest task is first |
// | none, a task waits                            | writes `copying`                           |
// | copying, cannot commit (relocation.hpp)       | abandons it                                |
// | copying, no contact to it for claim_timeout   | abandons it                                |
// | anything else                                 | leaves it to the hosts                     |
// Pure; owned by the leader.
#include "core/motion/planner.hpp"
#include "core/motion/relocation.hpp"

namespace hf::motion {

class RelocationPlanner {
 public:
  RelocationPlanner(Duration absence_max, std::function<OpId()> make_op)
      : absence_max_(absence_max), abandonings_(make_op, abandoning), begun_(std::move(make_op)) {}

  // REQUIRES: this host is leader.
  void tick(const PlannerContext& context, Actions& out);
  // Returns true if the event was its own.
  bool on(const ha::event::TxnDone& done, Instant now);

 private:
  // vSphere's: a host has 8 units for provisioning, a storage vMotion costs 4; a datastore takes 8.
  static constexpr int kHostMax = 2, kDatastoreMax = 8;

  struct Place {
    HostId host;            // empty: the task was ended
    std::string datastore;
  };
  void supervise(const PlannerContext& context);
  void plan(const record::TaskRecord& task, const PlannerContext& context, Actions& out);
  bool within_limits(const HostId& host, const std::string& datastore, const View& view) const;

  const Duration absence_max_;
  Endings abandonings_;
  std::map<TaskId, Instant> in_contact_;  // relocations that copy: when their host was last alive
  Begun<Place> begun_;
};

}  // namespace hf::motion
