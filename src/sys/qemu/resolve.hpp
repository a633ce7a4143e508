#pragma once
// From a launch request to the paths of this host: what qemu_command() needs, and the files QEMU's user must
// own. Looks at files, changes none but the UEFI variable store, which it creates on the first start.
#include <string>
#include <vector>

#include "base/result.hpp"
#include "port/hypervisor.hpp"

namespace hf::qemu {

struct Firmware {
  std::string code = "/usr/share/OVMF/OVMF_CODE_4M.fd";
  std::string vars = "/usr/share/OVMF/OVMF_VARS_4M.fd";  // the template a VM's own store begins as
};

struct Resolved {
  vm::LaunchContext context;             // all but run_dir, qemu_binary, accelerator and tap_fd
  std::vector<std::string> owned_files;  // this VM's alone
};

// Code::not_found with the name of what is missing; Code::invalid for a reference that leaves its datastore.
Result<Resolved> resolve(const LaunchRequest& request, const Firmware& firmware);

}  // namespace hf::qemu
