#pragma once
// VmControl: carries out the guard's actions on real VMs: stores the deadline in hold pages, writes
// cgroup.freeze. One thread, the guard's. It never decides.
#include <atomic>
#include <map>
#include <string>

#include "base/result.hpp"
#include "core/ha/guard.hpp"

namespace hf::guard {

class VmControl {
 public:
  VmControl() = default;
  ~VmControl();
  VmControl(const VmControl&) = delete;
  VmControl& operator=(const VmControl&) = delete;

  // Maps the VM's hold page. Needed before any other call for this VM.
  Status attach(const ha::Admission& admission);
  // After the VM was dropped.
  void detach(const VmId& vm);
  // REQUIRES: attached
  ha::HoldValue page(const VmId& vm) const;
  bool cgroup_frozen(const VmId& vm) const;
  // safety (no VM without a hold): some process of the cgroup must have mapped the page, which is what the
  // shim does.
  Status check_shim(const VmId& vm) const;

  void apply(const ha::GuardAction& action);
  // Freezes and thaws that failed are repeated until they succeed or the cgroup is gone. True: some are left.
  bool retry();

 private:
  struct Vm {
    std::string cgroup;
    std::uint64_t* page = nullptr;
    unsigned long page_inode = 0;
    bool wanted_frozen = false;
    bool pending = false;
  };
  void write_freeze(const VmId& id, Vm& vm);
  std::map<VmId, Vm> vms_;
};

}  // namespace hf::guard
