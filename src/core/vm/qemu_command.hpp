#pragma once
// The QEMU command line of a VM: pure, so that it is reviewed as text and tested without QEMU. Design: every
// VM is started so that everything can be turned on later (shared RAM for tracking, a raw filter node above
// each disk's format node, pinned machine and CPU, guest-agent channel and serial console always, QMP on a
// private socket, -sandbox on).
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "core/vm/spec.hpp"

namespace hf::vm {

enum class Accelerator { kvm, tcg };

struct ResolvedDisk {
  std::string name;  // as in the spec
  std::string path;  // absolute, on this host
  DiskFormat format = DiskFormat::qcow2;
  bool direct_io = true;  // O_DIRECT where the file system has it: no dirty pages that outlive a frozen QEMU
  bool read_only = false;
  bool cdrom = false;
  bool block_device = false;  // path is a block device, not a file
};

struct ResolvedNic {
  std::string mac;
  NicModel model = NicModel::virtio;
  int tap_fd = -1;  // inherited by QEMU
};

// Everything of this host that the command line depends on.
struct LaunchContext {
  std::string qemu_binary = "qemu-system-x86_64";
  std::string run_dir;  // private to the VM, on tmpfs: sockets qmp, engine, console and agent.sock
  std::string vm_id;
  std::string uuid;  // SMBIOS UUID: stable over restarts, derived from the VM's id
  Accelerator accelerator = Accelerator::tcg;
  bool incoming = false;  // waits for another host's guest instead of booting one
  // The spec's disks, its cdroms, then the cloud-init seed if the spec has one: named kSeedName, raw,
  // read-only and not a cdrom (small guest kernels have no driver for one; cloud-init finds the seed by its
  // label).
  std::vector<ResolvedDisk> disks;
  std::vector<ResolvedNic> nics;   // in the spec's order
  std::string kernel, initrd;      // resolved paths of the direct kernel
  std::string firmware_code;       // UEFI: OVMF_CODE.fd
  std::string firmware_vars;       // UEFI: this VM's variable store, on its datastore
  bool firmware_direct_io = true;  // as direct_io, for the variable store
};

// What a spec that names none gets. Both are in every QEMU since 7.2 and look the same to the guest in all of
// them.
inline constexpr const char* kPinnedMachine = "pc-q35-7.2";
// x86-64-v2, what today's distributions need at least; runs under KVM on Intel and AMD alike, and under TCG
// without a warning. enforce: a host that lacks a flag refuses the VM, instead of giving it another CPU than
// the next host will.
inline constexpr const char* kPinnedCpu =
    "qemu64-v1,enforce=on,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+lahf-lm";

// argv, argv[0] included. Code::unsupported with the reason where a spec cannot run on this host;
// Code::invalid where context and spec do not fit together. REQUIRES: validate(spec)
Result<std::vector<std::string>> qemu_command(const VmSpec& spec, const LaunchContext& context);

}  // namespace hf::vm
