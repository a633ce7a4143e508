#pragma once
// Which accelerator this host's QEMUs use. KVM only where a guest was seen to run on it; else TCG, with the
// reason.
#include <optional>
#include <string>

#include "core/vm/qemu_command.hpp"

namespace hf::qemu {

struct KvmFacts {
  bool cpu_flag = false;                     // vmx or svm in /proc/cpuinfo
  int open_error = 0;                        // errno of opening /dev/kvm; 0: opened
  int api_version = 0;                       // KVM_GET_API_VERSION
  std::optional<std::string> trial_failure;  // empty text: a guest ran. Unset: not tried
};

struct AcceleratorChoice {
  vm::Accelerator accelerator = vm::Accelerator::tcg;
  std::string reason;  // a sentence
};

// Pure.
AcceleratorChoice choose_accelerator(const KvmFacts& facts);
// Looks, and runs a guest of three instructions where the CPU flag is present (at most 2 s).
KvmFacts read_kvm_facts();
// "kvm" or "tcg": HostRecord::accelerator, RunningVm::accelerator.
std::string name_of(vm::Accelerator accelerator);

}  // namespace hf::qemu
