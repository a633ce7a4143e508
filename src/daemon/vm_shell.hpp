#pragma once
// VmShell: carries the deciding code's VM actions out, through hypervisor, guard and datastore, and brings what
// became of them back as events. Each action runs on a pool; actions for one VM are sent one after the other by the
// agent.
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "core/ha/events.hpp"
#include "daemon/disk_moves.hpp"
#include "daemon/mailbox.hpp"
#include "daemon/motions.hpp"
#include "daemon/surroundings.hpp"
#include "daemon/worker_pool.hpp"
#include "guard/client.hpp"
#include "port/hypervisor.hpp"

namespace hf::daemon {

class VmShell {
 public:
  // All must outlive this.
  VmShell(HostId self, Hypervisor& hypervisor, guard::GuardClient& guard, const SharedSurroundings& surroundings,
          Motions& motions, Mailbox& mailbox);

  // Finds the VMs that run already and tells the deciding code. Call once, before anything else.
  Status adopt();

  void carry_out(const ha::action::Launch& launch);
  void carry_out(const ha::action::AskStop& ask);
  void carry_out(const ha::action::Kill& kill);
  void carry_out(const ha::action::Reset& reset);
  void carry_out(const ha::action::Thaw& thaw);
  void carry_out(const ha::action::Continue& go_on);
  void carry_out(const ha::action::Prepare& prepare);
  void carry_out(const ha::action::Send& send);
  void carry_out(const ha::action::AbortMotion& abort);
  void carry_out(const ha::action::CommittedMotion& committed);
  void carry_out(const ha::action::Activate& activate);
  void carry_out(const ha::action::RecordOwner& record);
  void carry_out(const ha::action::Copy& copy) { disks_.carry_out(copy); }
  void carry_out(const ha::action::SettleCopy& settle) { disks_.carry_out(settle); }

 private:
  // Why it could not be launched; `refused`: the guard would not have it.
  struct Refusal {
    Error error;
    bool refused = false;
  };
  Result<LaunchRequest> request_for(const record::VmRecord& vm, Epoch epoch) const;
  Status confirm_on_datastore(const record::VmRecord& vm, const record::OwnerRecord& owner) const;
  // Empty on success. memory_tracker: of what was started, as in VmStatus.
  std::vector<Refusal> launch_now(const ha::action::Launch& launch, std::string& memory_tracker);
  Result<Motions::Listening> prepare_now(const ha::action::Prepare& prepare, std::string& memory_tracker);
  std::vector<Refusal> activate_now(const ha::action::Activate& activate);
  void on_exit(const VmExit& exit);

  const HostId self_;
  Hypervisor& hypervisor_;
  guard::GuardClient& guard_;
  const SharedSurroundings& surroundings_;
  Motions& motions_;
  Mailbox& mailbox_;
  std::mutex mutex_;
  std::map<VmId, RunningVm> incoming_;  // prepared or found, until they have ended
  DiskMoves disks_;
  WorkerPool pool_{"hf-vm", 8};
};

}  // namespace hf::daemon
