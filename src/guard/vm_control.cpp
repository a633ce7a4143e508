#include "guard/vm_control.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "base/log.hpp"

namespace hf::guard {
namespace {
static_assert(std::endian::native == std::endian::little, "The hold page is little-endian.");

// /proc/<pid>/maps: address perms offset device inode path
bool maps_inode(const std::string& pid, unsigned long inode) {
  std::ifstream maps("/proc/" + pid + "/maps");
  for (std::string line; std::getline(maps, line);) {
    std::istringstream fields(line);
    std::string address, permissions, offset, device;
    unsigned long found = 0;
    if ((fields >> address >> permissions >> offset >> device >> found) && found == inode) return true;
  }
  return false;
}
}  // namespace

VmControl::~VmControl() {
  for (const auto& [id, vm] : vms_) ::munmap(vm.page, sizeof *vm.page);
}

Status VmControl::attach(const ha::Admission& admission) {
  if (vms_.contains(admission.vm)) return {};
  if (::access((admission.cgroup + "/cgroup.freeze").c_str(), W_OK) != 0) {
    return from_errno("Cannot use the cgroup " + admission.cgroup, errno);
  }
  const int fd = ::open(admission.hold_page.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return from_errno("Cannot open the hold page " + admission.hold_page, errno);
  struct stat info{};
  const bool usable = ::fstat(fd, &info) == 0 && S_ISREG(info.st_mode) &&
                      info.st_size >= static_cast<off_t>(sizeof(std::uint64_t));
  void* mapped =
      usable ? ::mmap(nullptr, sizeof(std::uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
  ::close(fd);
  if (mapped == MAP_FAILED) {
    return Error{Code::invalid, "The hold page " + admission.hold_page + " is no file of at least 8 bytes."};
  }
  vms_[admission.vm] = Vm{admission.cgroup, static_cast<std::uint64_t*>(mapped),
                          static_cast<unsigned long>(info.st_ino), false, false};
  return {};
}

void VmControl::detach(const VmId& vm) {
  const auto found = vms_.find(vm);
  if (found == vms_.end()) return;
  ::munmap(found->second.page, sizeof *found->second.page);
  vms_.erase(found);
}

ha::HoldValue VmControl::page(const VmId& vm) const { return std::atomic_ref(*vms_.at(vm).page).load(); }

bool VmControl::cgroup_frozen(const VmId& vm) const {
  std::ifstream in(vms_.at(vm).cgroup + "/cgroup.freeze");
  int frozen = 1;  // safety (freeze latch): what cannot be read counts as frozen
  in >> frozen;
  return !in || frozen != 0;
}

Status VmControl::check_shim(const VmId& id) const {
  const Vm& vm = vms_.at(id);
  std::ifstream in(vm.cgroup + "/cgroup.procs");
  for (std::string pid; in >> pid;) {
    if (maps_inode(pid, vm.page_inode)) return {};
  }
  return Error{Code::invalid,
               "No process in " + vm.cgroup +
                   " has mapped the hold page; start QEMU with libholdfast_shim.so preloaded."};
}

void VmControl::write_freeze(const VmId& id, Vm& vm) {
  const int fd = ::open((vm.cgroup + "/cgroup.freeze").c_str(), O_WRONLY | O_CLOEXEC);
  const bool done = fd >= 0 && ::write(fd, vm.wanted_frozen ? "1" : "0", 1) == 1;
  const int problem = errno;
  if (fd >= 0) ::close(fd);
  const bool gone = !done && (problem == ENOENT || problem == ENODEV);
  if (!done && !gone && !vm.pending) {
    log(Level::error, "cannot change cgroup.freeze, trying on",
        {{"vm", id.text},
         {"cgroup", vm.cgroup},
         {"frozen", vm.wanted_frozen ? "1" : "0"},
         {"why", std::strerror(problem)}});
  }
  vm.pending = !done && !gone;
}

void VmControl::apply(const ha::GuardAction& action) {
  if (const auto* hold = std::get_if<ha::SetHold>(&action)) {
    // safety (deadline): the one line that moves a VM's right to write.
    if (const auto found = vms_.find(hold->vm); found != vms_.end()) {
      std::atomic_ref(*found->second.page).store(hold->value);
    }
    return;
  }
  const bool freeze = std::holds_alternative<ha::Freeze>(action);
  const VmId& id = freeze ? std::get<ha::Freeze>(action).vm : std::get<ha::Thaw>(action).vm;
  const auto found = vms_.find(id);
  if (found == vms_.end()) return;
  // safety (freeze latch): the one line that stops and continues a VM's processes.
  found->second.wanted_frozen = freeze;
  write_freeze(id, found->second);
}

bool VmControl::retry() {
  bool left = false;
  for (auto& [id, vm] : vms_) {
    if (vm.pending) write_freeze(id, vm);
    left = left || vm.pending;
  }
  return left;
}

}  // namespace hf::guard
