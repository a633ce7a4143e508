#include "sys/qemu/accelerator.hpp"

#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <sstream>

#include "sys/process/small_file.hpp"
#include "sys/process/unique_fd.hpp"

namespace hf::qemu {
namespace {
using process::UniqueFd;

bool has_virtualization_flag(const std::string& cpuinfo) {
  std::istringstream lines(cpuinfo);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("flags")) continue;
    line += ' ';
    return line.find(" vmx ") != std::string::npos || line.find(" svm ") != std::string::npos;
  }
  return false;
}

// In a child process. Runs `mov al, 'K'; out 0xe9, al; hlt` at address 0 in real mode. Its exit status: 0, it
// ran.
int run_smallest_guest(int kvm) {
  constexpr std::size_t kPage = 4096;
  constexpr std::array<unsigned char, 5> kProgram = {0xb0, 'K', 0xe6, 0xe9, 0xf4};
  const int machine = ::ioctl(kvm, KVM_CREATE_VM, 0UL);
  if (machine < 0) return 1;
  void* memory = ::mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 1;
  std::memcpy(memory, kProgram.data(), kProgram.size());
  kvm_userspace_memory_region region{};
  region.memory_size = kPage;
  region.userspace_addr = reinterpret_cast<std::uintptr_t>(memory);
  if (::ioctl(machine, KVM_SET_USER_MEMORY_REGION, &region) < 0) return 1;
  const int cpu = ::ioctl(machine, KVM_CREATE_VCPU, 0UL);
  const int run_size = ::ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0UL);
  if (cpu < 0 || run_size < 0) return 1;
  void* shared =
      ::mmap(nullptr, static_cast<std::size_t>(run_size), PROT_READ | PROT_WRITE, MAP_SHARED, cpu, 0);
  if (shared == MAP_FAILED) return 1;
  kvm_sregs segments{};
  kvm_regs registers{};
  if (::ioctl(cpu, KVM_GET_SREGS, &segments) < 0) return 1;
  segments.cs.base = 0;
  segments.cs.selector = 0;
  registers.rflags = 2;
  if (::ioctl(cpu, KVM_SET_SREGS, &segments) < 0 || ::ioctl(cpu, KVM_SET_REGS, &registers) < 0) return 1;
  if (::ioctl(cpu, KVM_RUN, 0UL) < 0) return 1;
  const auto* run = static_cast<const kvm_run*>(shared);
  const bool wrote = run->exit_reason == KVM_EXIT_IO && run->io.port == 0xe9 &&
                     static_cast<const char*>(shared)[run->io.data_offset] == 'K';
  return wrote ? 0 : 2;
}

// A guest that hangs hangs a child, which can be killed. Empty: a guest ran.
std::string try_kvm(int kvm) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) < 0) return "no pipe";
  const UniqueFd reading(ends[0]);
  UniqueFd writing(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) return "no process";
  if (child == 0) ::_exit(run_smallest_guest(kvm));
  writing.reset();
  pollfd ended{reading.get(), POLLIN, 0};  // the pipe's other end closes with the child
  const bool in_time = ::poll(&ended, 1, 2000) == 1;
  if (!in_time) ::kill(child, SIGKILL);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  if (!in_time) return "it did not come back within 2 s";
  if (!WIFEXITED(status) || WEXITSTATUS(status) == 2) return "it did not do what it was told";
  return WEXITSTATUS(status) == 0 ? "" : "the kernel refused it";
}

}  // namespace

AcceleratorChoice choose_accelerator(const KvmFacts& facts) {
  const auto tcg = [](std::string why) {
    return AcceleratorChoice{vm::Accelerator::tcg,
                             "VMs run on software emulation (TCG), which is slow: " + why};
  };
  if (!facts.cpu_flag) {
    return tcg(
        "the CPU shows no hardware virtualization (no vmx or svm flag); enable it in the firmware, or nested "
        "virtualization if this machine is itself a VM.");
  }
  if (facts.open_error == ENOENT || facts.open_error == ENODEV || facts.open_error == ENXIO) {
    return tcg("/dev/kvm is not there; load the module kvm_intel or kvm_amd.");
  }
  if (facts.open_error != 0)
    return tcg(std::string("/dev/kvm cannot be opened: ") + std::strerror(facts.open_error) + ".");
  if (facts.api_version != KVM_API_VERSION) {
    return tcg("/dev/kvm speaks version " + std::to_string(facts.api_version) + " and QEMU needs 12.");
  }
  if (!facts.trial_failure) return tcg("no guest was tried on KVM yet.");
  if (!facts.trial_failure->empty())
    return tcg("a trial guest did not run on KVM (" + *facts.trial_failure + ").");
  return {vm::Accelerator::kvm, "A trial guest ran on KVM."};
}

KvmFacts read_kvm_facts() {
  KvmFacts facts;
  const auto cpuinfo = process::read_small_file("/proc/cpuinfo", 64 << 20);
  facts.cpu_flag = cpuinfo && has_virtualization_flag(*cpuinfo);
  const UniqueFd kvm(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
  if (!kvm) {
    facts.open_error = errno;
    return facts;
  }
  facts.api_version = ::ioctl(kvm.get(), KVM_GET_API_VERSION, 0UL);
  if (facts.cpu_flag && facts.api_version == KVM_API_VERSION) facts.trial_failure = try_kvm(kvm.get());
  return facts;
}

std::string name_of(vm::Accelerator accelerator) {
  return accelerator == vm::Accelerator::kvm ? "kvm" : "tcg";
}

}  // namespace hf::qemu
