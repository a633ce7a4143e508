#pragma once
// Planner: the leader's part of motions: begins what vm.migrate tasks ask for, as far as the limits let it, and ends
// what cannot go on. Any number of hosts may believe to be leader: beginning is a swap that insists on the leader's
// record; ending is harmless to whatever still goes well, since it only takes a record away that a commit insists on.
//
// | motions/<vm>                                      | the planner                                |
// |---------------------------------------------------|--------------------------------------------|
// | none, a task waits, a reason against it           | ends the task with every reason            |
// | none, a task waits, the limits are reached        | leaves it queued; the oldest task is first |
// | none, a task waits                                | writes `preparing`                         |
// | over (motion.hpp)                                 | erases it                                  |
// | pending, a side without contact for claim_timeout | ends it                                    |
// | pending, its destination is to be in maintenance  | ends it                                    |
// | preparing for a minute                            | ends it                                    |
// | anything else                                     | leaves it to source and destination        |
// Pure; owned by the leader.
#include <map>

#include "core/ha/session.hpp"
#include "core/motion/begun.hpp"
#include "core/motion/checks.hpp"
#include "core/motion/motion.hpp"

namespace hf::motion {

// vSphere's: a host has 8 units for provisioning, a vMotion costs 1, one that takes disks along as much as a storage
// vMotion, which is 4; a network takes 4 vMotions at less than 10 Gbit/s and 8 from there on.
struct Limits {
  int host = 8;
  int with_disks = 4;
  int slow_link = 4, fast_link = 8;
  int fast_mbit = 10000;
};
// How many vMotions without disks may use that host at once.
int limit_of(const record::HostRecord& host, const Limits& limits);

struct PlannerContext {
  const View& view;
  const ha::Session& session;
  const std::map<HostId, ha::Assessment>& health;
  Instant now;
};

class Planner {
 public:
  Planner(Duration absence_max, std::function<OpId()> make_op, ha::KeptBug bug = ha::KeptBug::none)
      : absence_max_(absence_max), bug_(bug), endings_(make_op), begun_(std::move(make_op)) {}

  // REQUIRES: this host is leader.
  void tick(const PlannerContext& context, Actions& out);
  // Adds what is begun and not in the view yet.
  void add_begun(const View& view, std::vector<placement::Candidate>& candidates) const;
  // Returns true if the event was its own.
  bool on(const ha::event::TxnDone& done, Instant now);

 private:
  struct Seen {
    TaskId id;
    record::MotionRecord::Phase phase = record::MotionRecord::Phase::preparing;
    Instant since{};         // of the phase
    Instant in_contact{};    // when both sides were last alive
  };
  void supervise(const PlannerContext& context);
  void begin(const PlannerContext& context, Actions& out);
  void plan(const record::TaskRecord& task, const PlannerContext& context,
            std::vector<placement::Candidate>& candidates, Actions& out);
  void refuse(const record::TaskRecord& task, const std::vector<std::string>& reasons, const PlannerContext& context,
              Actions& out);
  bool within_limits(const HostId& host, const record::MotionRecord& one_more, const PlannerContext& context) const;

  const Duration absence_max_;
  const ha::KeptBug bug_;
  const Limits limits_;
  Endings endings_;
  std::map<VmId, Seen> seen_;
  Begun<record::MotionRecord> begun_;
};

}  // namespace hf::motion
