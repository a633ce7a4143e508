#pragma once
// User: creates VMs and gives commands, through the records, as the API does (core/record/records.hpp):
// `active_task` is the lock against two commands at once. Owned by a run.
#include <string>

#include "core/ha/view.hpp"
#include "core/record/records.hpp"
#include "sim/queue.hpp"

namespace hf::sim {

class World;

class User {
 public:
  explicit User(World& world) : w_(world) {}
  void create_some(int count);
  void create(const std::string& id, std::uint64_t memory_mib, vm::RestartPriority priority);
  // False: refused (another command is under way, or the store is away).
  bool command(const VmId& vm, record::TaskKind kind);
  // `vm migrate`; an empty host: the leader chooses. With disks: they go along into the other format.
  bool migrate(const VmId& vm, const HostId& to, bool with_disks = false);
  bool relocate(const VmId& id);
  // Calls off the motion of a VM, if it is not too late.
  bool cancel(const VmId& vm);
  // `host maintenance`, and `--leave`. False: refused.
  bool enter_maintenance(const HostId& host);
  bool leave_maintenance(const HostId& host);
  // `vm edit`: protected by HA from now on, or not.
  void edit(const VmId& vm, bool is_protected);
  // Random commands from now on.
  void begin();
  void end() { ++generation_; }

 private:
  bool kill_moving(record::VmRecord vm, ha::Version read);
  // Makes the task the VM's, as it was read with that version. False: refused.
  bool ask(record::VmRecord vm, ha::Version read, record::TaskRecord task);
  void next();
  void next_migration(const VmId& vm);
  void next_maintenance();
  World& w_;
  int generation_ = 0;
  int tasks_ = 0;
  std::vector<VmId> vms_;
};

}  // namespace hf::sim
