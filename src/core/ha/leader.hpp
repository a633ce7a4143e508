#pragma once
// Leader: the one host that gives VMs to hosts: first starts, restarts after a failure, and giving back what dead
// hosts held. Any number of hosts may believe to be leader: every decision is a swap that only one can win, and a
// takeover insists on the proof (observer.hpp). Pure; owned by the control thread through HostCore.
//
// For each VM that is wanted running:
// | owners/<vm>         | its host              | the leader                                                        |
// |---------------------|-----------------------|-------------------------------------------------------------------|
// | none, released      |                       | chooses a host: assigned, epoch + 1 (after a failed start: later)  |
// | assigned            | alive                 | waits claim_timeout, then chooses another: epoch + 1              |
// | assigned            | not alive             | chooses another: epoch + 1 (a claim in between wins the swap)     |
// | claimed, guarded    | dead, VM protected    | takes over: assigned to another, epoch + 1, proof in the swap     |
// | claimed             | anything else         | leaves it                                                         |
// A host in maintenance is chosen for none of them, and the swap insists on it.
// Who moves while it runs is planned by motion::Planner; who shall leave a host, by motion::Evacuation.
#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/ha/events.hpp"
#include "core/ha/observer.hpp"
#include "core/ha/session.hpp"
#include "core/ha/timing.hpp"
#include "core/motion/evacuation.hpp"
#include "core/motion/planner.hpp"
#include "core/motion/relocation_planner.hpp"
#include "core/placement/placement.hpp"

namespace hf::ha {

struct LeaderContext {
  const View& view;
  const Session& session;
  const Observer& observer;
  bool guard_lapsed = false;
  Generation guard_generation = 0;
  Instant now;
};

class Leader {
 public:
  static constexpr int kStartsPerHostMax = 32;  // under way at once; vSphere's perHostConcurrentFailoversLimit

  Leader(HostId self, Timing timing, std::function<OpId()> make_op, std::function<TaskId()> make_task,
         KeptBug bug = KeptBug::none)
      : self_(std::move(self)),
        timing_(timing),
        make_op_(make_op),
        bug_(bug),
        planner_(timing.claim_timeout, make_op, bug),
        relocations_(timing.claim_timeout, make_op),
        evacuation_(std::move(make_op), std::move(make_task)) {}

  void tick(const LeaderContext& context, Actions& out);
  bool on(const event::TxnDone& done, const LeaderContext& context);
  bool is_leader(const LeaderContext& context) const;
  // As of the last tick; for `host ls`.
  const std::map<HostId, Assessment>& health() const { return health_; }
  const std::string& brake() const { return brake_; }  // why nobody is declared dead now; empty: no brake

 private:
  struct Placement;  // who has how much, within one tick
  enum class Next { nothing, assign, take_over, give_back, end_task };

  void note_contact(const LeaderContext& context);
  bool look_due(const LeaderContext& context) const;
  void look(const LeaderContext& context, Actions& out);
  void look_again_at(Instant when) { look_at_ = std::min(look_at_, when); }
  void campaign(const LeaderContext& context, Actions& out);
  void assess_all(const LeaderContext& context, Actions& out);
  void set_brake(std::size_t lost, const LeaderContext& context);
  void report_health_change(const HostId& host, const Assessment& before, const Assessment& after, Actions& out) const;
  Next next_for(const VmId& vm, const record::VmRecord& record, const LeaderContext& context);
  Next next_wanted(const VmId& vm, const record::VmRecord& record, const LeaderContext& context);
  void carry_out(Next next, const VmId& vm, const LeaderContext& context, Placement& placement, Actions& out);
  void assign(const VmId& vm, bool takeover, const LeaderContext& context, Placement& placement, Actions& out);
  void cannot_place(const VmId& vm, const Error& why, const LeaderContext& context, Actions& out);
  void give_back(const VmId& vm, const LeaderContext& context, Actions& out);
  void end_task(const VmId& vm, const Error* error, const LeaderContext& context, Actions& out);
  // Once every host of the inventory has a version that knows more.
  void raise_level(const LeaderContext& context, Actions& out);
  void fail_orphaned_tasks(const LeaderContext& context, Actions& out);

  bool retry_due(const VmId& vm, const LeaderContext& context);
  bool dead(const HostId& host) const;
  Health health_of(const HostId& host) const;
  void add_proof(const HostId& host, const LeaderContext& context, TypedTxn& txn) const;
  void send(const VmId& vm, TypedTxn txn, const LeaderContext& context, Actions& out);

  const HostId self_;
  const Timing timing_;
  const std::function<OpId()> make_op_;
  const KeptBug bug_;
  motion::Planner planner_;
  motion::RelocationPlanner relocations_;
  motion::Evacuation evacuation_;
  std::map<HostId, Assessment> health_;
  std::string brake_;
  bool in_contact_ = false;
  Generation contact_generation_ = 0;  // a lapse between two ticks shows in it alone
  Instant contact_since_{};
  OpId campaign_op_ = 0, level_op_ = 0;
  Instant campaign_at_{};
  // When all VMs are looked at next: only then can there be anything to do.
  bool look_now_ = true;               // something other than the view has changed
  std::uint64_t looked_revision_ = 0;  // the view's, at the last look
  Instant look_at_{};                  // the earliest of the times that the last look found to wait for
  std::map<OpId, VmId> pending_;
  std::map<VmId, Instant> busy_until_;       // a swap is in flight, or was and its effect is not in the view yet
  struct Seen { Version version = 0; Instant at{}; };
  std::map<VmId, Seen> assigned_seen_;       // since when this assignment stands
  std::map<VmId, Seen> failed_seen_;         // since when this failed start is known
  std::map<VmId, std::string> unplaced_;     // the reason last reported
};

}  // namespace hf::ha
