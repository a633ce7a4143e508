#pragma once
// Starting one QEMU, all or nothing, and removing what one leaves behind. Blocking; thread-safe for different
// VMs, and for the same VM by the lock on its run directory.
#include <memory>

#include "port/hypervisor.hpp"
#include "sys/process/unique_fd.hpp"
#include "sys/qemu/qemu_options.hpp"
#include "sys/qemu/qmp.hpp"

namespace hf::qemu {

struct StartedQemu {
  RunningVm vm;
  process::UniqueFd pidfd;
  std::unique_ptr<QmpClient> monitor;
};

// QEMU answers its monitor and its guest is stopped. Code::exists: a process of this VM lives already.
// On any error nothing is left, unless the error is Code::outcome_unknown: then a process could not be
// killed.
Result<StartedQemu> start_qemu(const QemuOptions& options, const LaunchRequest& request,
                               QmpClient::OnEvent on_event);

// Kills what lives in the VM's cgroup, keeps the ends of its logs, removes cgroup and run directory. Safe to
// repeat. Code::outcome_unknown: something lives on; then nothing is removed.
Status erase_traces(const QemuOptions& options, const VmId& vm, Duration limit);

}  // namespace hf::qemu
