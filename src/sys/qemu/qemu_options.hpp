#pragma once
// What the daemon tells QemuHypervisor about this host. A value, never changed after the start.
#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

#include "base/ids.hpp"
#include "base/time.hpp"
#include "sys/process/cgroup.hpp"
#include "sys/qemu/accelerator.hpp"
#include "sys/qemu/resolve.hpp"
#include "sys/qemu/run_dir.hpp"

namespace hf::qemu {

struct QemuOptions {
  std::string run_dir;      // "/run/holdfast": on tmpfs, private to this host's daemon
  std::string cgroup_root;  // "<cgroup2 mount>/holdfast"; VMs are in <root>/vms/<vm>
  std::string log_dir;      // the ends of dead VMs' logs; empty: not kept
  std::string qemu_binary = "qemu-system-x86_64";
  std::string shim;  // libholdfast_shim.so; empty: none is preloaded
  uid_t uid = 0;     // of QEMU: unprivileged, the same on all hosts that share datastores
  gid_t gid = 0;
  int nice = 0;  // labs: the hosts' own processes before the guests
  int oom_score_adj = 0;
  Firmware firmware;
  AcceleratorChoice accelerator;
  std::size_t log_bytes_max = 8 << 20;
  Duration launch_limit = 10s;
  // The command line; another one only in tests.
  std::function<Result<std::vector<std::string>>(const vm::VmSpec&, const vm::LaunchContext&)> command =
      vm::qemu_command;

  RunDir dir_of(const VmId& vm) const { return {run_dir + "/vms/" + vm.text}; }
  process::Cgroup cgroup_of(const VmId& vm) const { return process::Cgroup(cgroup_root + "/vms/" + vm.text); }
};

}  // namespace hf::qemu
