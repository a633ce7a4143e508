#pragma once
// The QEMU command line of a VM: pure, so that it is reviewed as text and tested without QEMU. Design: every VM is started
// so that everything can be turned on later (shared RAM for tracking, a raw filter node above each disk's format node,
// pinned machine and CPU, guest-agent channel and serial console always, QMP on a private socket, -sandbox on).
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "core/vm/spec.hpp"

namespace hf::vm {

enum class Accelerator { kvm, tcg };

struct ResolvedDisk {
  std::string name;         // as in the spec
  std::string path;         // absolute, on this host
  DiskFormat format = DiskFormat::qcow2;
  bool direct_io = true;    // O_DIRECT where the file system has it: no dirty pages that outlive a frozen QEMU
  bool read_only = false;
  bool cdrom = false;
};

struct ResolvedNic {
  std::string mac;
  NicModel model = NicModel::virtio;
  int tap_fd = -1;          // inherited by QEMU
};

// Everything of this host that the command line depends on.
struct LaunchContext {
  std::string qemu_binary = "qemu-system-x86_64";
  std::string run_dir;      // private to the VM, on tmpfs: sockets qmp.sock, console.sock, agent.sock
  std::string vm_id;
  std::string uuid;         // SMBIOS UUID: stable over restarts, derived from the VM's id
  Accelerator accelerator = Accelerator::tcg;
  std::vector<ResolvedDisk> disks;  // disks, cdroms and the cloud-init seed, in the spec's order
  std::vector<ResolvedNic> nics;    // in the spec's order
  std::string kernel, initrd;       // resolved paths of the direct kernel
  std::string firmware_code;        // UEFI: OVMF_CODE.fd
  std::string firmware_vars;        // UEFI: this VM's variable store, on its datastore
};

// argv, argv[0] included. Code::unsupported with the reason where a spec cannot run on this host.
Result<std::vector<std::string>> qemu_command(const VmSpec& spec, const LaunchContext& context);

}  // namespace hf::vm
