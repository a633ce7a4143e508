#pragma once
// Control: the control thread. Takes events from the mailbox, steps the deciding code, hands its actions to the
// shells, and publishes what the API shows. Owns nothing but the thread and the HostCore.
#include <atomic>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "core/ha/host.hpp"
#include "core/ha/share_check.hpp"
#include "daemon/mailbox.hpp"
#include "daemon/slot_reader.hpp"
#include "daemon/store_shell.hpp"
#include "daemon/vm_shell.hpp"

namespace hf::daemon {

// What the API and the heartbeats need of the deciding code. A value, renewed at every tick.
struct ControlStatus {
  bool leader = false;
  std::string brake;
  std::map<HostId, ha::Assessment> health;     // the leader's view
  std::vector<std::string> heartbeat_addresses;  // of the other hosts
  bool store_contact = false;
  bool guard_lapsed = false;
  std::size_t frozen_vms = 0;
};

class Control {
 public:
  struct Parts {
    Mailbox& mailbox;
    StoreShell& store;
    VmShell& vms;
    SlotReader& slots;
    guard::GuardClient& guard;
    // Called on the control thread after the view has changed.
    std::function<void(const ha::View&)> on_view;
    // Called on the control thread: datastores, by id, that this host must not use, and why. Often the same again.
    std::function<void(std::map<std::string, std::string>)> on_barred;
  };
  Control(HostId self, ha::Timing timing, std::uint64_t seed, Parts parts);
  ~Control();

  ControlStatus status() const;

 private:
  void run();
  void step(const ha::Event& event);
  void carry_out(const ha::Action& action);
  void after_view_change();
  void check_sharing();
  bool is_not_shared(const std::string& datastore) const { return not_shared_.count(datastore) != 0; }
  void publish();

  Parts parts_;
  const ha::Timing timing_;
  ha::HostCore core_;
  ha::ShareCheck share_check_;
  std::map<std::string, ha::ShareCheck::Verdict> not_shared_;  // as last reported
  std::map<std::string, std::string> mounted_;                 // by datastore id; a path is kept after its last use
  WorkerPool guard_pool_{"hf-guard", 1};  // renewals, in order, never behind anything slow
  mutable std::mutex mutex_;
  ControlStatus status_;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace hf::daemon
