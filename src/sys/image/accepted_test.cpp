// Goal: the real QEMU takes the command line of core/vm for every kind of VM: it comes up stopped, and ends
// when told to. Method: QEMU under TCG, taps in a network namespace of the child (where taps are not allowed:
// hub ports), QMP by hand.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <fstream>

#include "base/testing/temp_folder.hpp"
#include "core/vm/identity.hpp"
#include "core/vm/qemu_command.hpp"
#include "sys/image/image.hpp"
#include "sys/image/seed.hpp"

namespace hf::image {
namespace {
namespace fs = std::filesystem;
using vm::DiskFormat;
using vm::VmSpec;

constexpr std::uint64_t kMiB = 1 << 20;

class Accepted : public testing::Test {
 protected:
  // Makes what the spec names and starts QEMU with it. Empty: it said "prelaunch" and ended well; else what
  // went wrong.
  std::string run(const VmSpec& spec) {
    auto valid = validate(spec);
    if (!valid.ok()) return valid.error().what;
    vm::LaunchContext context = prepare(spec);
    auto argv = qemu_command(spec, context);
    if (!argv.ok()) return argv.error().what;
    const pid_t qemu = start(*argv, spec.nics.size());
    std::string said = talk(context.run_dir + "/qmp.sock", qemu);
    int status = 0;
    if (said.find("\"prelaunch\"") == std::string::npos) ::kill(qemu, SIGKILL);
    ::waitpid(qemu, &status, 0);
    std::ifstream log(scratch_ / "qemu.log");
    const std::string words(std::istreambuf_iterator<char>(log), {});
    // QEMU says of its end by QMP `quit` nothing; any word is a warning that an operator would have to read.
    if (status == 0 && words.empty() && said.find("\"prelaunch\"") != std::string::npos) return "";
    return "status " + std::to_string(status) + ", QMP: " + said + ", QEMU: " + words;
  }

 private:
  vm::LaunchContext prepare(const VmSpec& spec) {
    vm::LaunchContext context;
    context.run_dir = scratch_ / "run,1";
    fs::create_directory(context.run_dir);
    context.vm_id = "vm-1";
    context.uuid = vm::uuid_of(VmId("vm-1"));
    const bool direct = supports_direct_io(scratch_.path());
    for (const vm::Disk& disk : spec.disks) {
      const std::string path = scratch_ / (disk.name + ",x");
      EXPECT_TRUE(create(path, {disk.format, disk.size_bytes, false}).ok());
      context.disks.push_back({disk.name, path, disk.format, direct, false, false, false});
    }
    for (const vm::Cdrom& cdrom : spec.cdroms) {
      const std::string path = scratch_ / (cdrom.name + ".iso");
      EXPECT_TRUE(create(path, {DiskFormat::raw, kMiB, false}).ok());
      context.disks.push_back({cdrom.name, path, DiskFormat::raw, direct, true, true, false});
    }
    if (spec.cloud_init) {
      EXPECT_TRUE(make_seed(*spec.cloud_init, spec.name, "vm-1", scratch_ / "seed.iso").ok());
      context.disks.push_back(
          {std::string(vm::kSeedName), scratch_ / "seed.iso", DiskFormat::raw, direct, true, false, false});
    }
    int fd = kFirstTap;
    for (const vm::Nic& nic : spec.nics) context.nics.push_back({nic.mac, nic.model, fd++});
    if (spec.firmware == vm::Firmware::uefi) {
      context.firmware_code = "/usr/share/OVMF/OVMF_CODE_4M.fd";
      context.firmware_vars = scratch_ / "vars.fd";
      context.firmware_direct_io = direct;
      fs::copy_file("/usr/share/OVMF/OVMF_VARS_4M.fd", context.firmware_vars);
    }
    return context;
  }

  // Opens a tap as descriptor `fd` in a network namespace of this (child) process.
  static bool open_tap(int fd) {
    const int tun = ::open("/dev/net/tun", O_RDWR);
    if (tun < 0) return false;
    ifreq request{};
    request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR);
    if (::ioctl(tun, TUNSETIFF, &request) != 0) return false;
    return tun == fd || (::dup2(tun, fd) == fd && ::close(tun) == 0);
  }

  pid_t start(std::vector<std::string> argv, std::size_t nics) {
    const std::string log = scratch_ / "qemu.log";
    const pid_t child = ::fork();
    if (child != 0) return child;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    bool taps = ::unshare(::geteuid() == 0 ? CLONE_NEWNET : CLONE_NEWNET | CLONE_NEWUSER) == 0;
    for (std::size_t i = 0; taps && i < nics; ++i) taps = open_tap(kFirstTap + static_cast<int>(i));
    for (std::string& argument : argv) {
      if (taps || !argument.starts_with("tap,id=net")) continue;
      const std::string id = argument.substr(7, argument.find(',', 7) - 7);
      argument = "hubport,id=" + id + ",hubid=" + id.substr(3);
    }
    const int words = ::open(log.c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600);
    ::dup2(words, 1);
    ::dup2(words, 2);
    std::vector<char*> arguments;
    for (std::string& argument : argv) arguments.push_back(argument.data());
    arguments.push_back(nullptr);
    ::execvp(arguments[0], arguments.data());
    ::_exit(127);
  }

  // Asks for the status, then tells QEMU to quit; gives all that QMP said.
  static std::string talk(const std::string& path, pid_t qemu) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    while (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
      siginfo_t ended{};
      if (::waitid(P_PID, static_cast<id_t>(qemu), &ended, WEXITED | WNOHANG | WNOWAIT) != 0 ||
          ended.si_pid != 0) {
        ::close(fd);
        return "no QMP: QEMU ended";
      }
      ::poll(nullptr, 0, 5);  // until the socket is there, or QEMU is not
    }
    const std::string commands =
        R"({"execute":"qmp_capabilities"}{"execute":"query-status"}{"execute":"quit"})";
    std::string said;
    if (::write(fd, commands.data(), commands.size()) == static_cast<ssize_t>(commands.size())) {
      char piece[4096];
      for (ssize_t got = 0; (got = ::read(fd, piece, sizeof(piece))) > 0;)
        said.append(piece, static_cast<std::size_t>(got));
    }
    ::close(fd);
    return said;
  }

  static constexpr int kFirstTap = 100;
  test::TempFolder scratch_;
};

VmSpec named(const std::string& name) {
  VmSpec spec;
  spec.name = name;
  spec.memory_mib = 64;
  spec.datastore = "a";
  return spec;
}

std::string mac(int number) { return vm::generate_mac(static_cast<std::uint64_t>(number)); }

TEST_F(Accepted, vm_with_nothing) { EXPECT_EQ(run(named("bare")), ""); }

TEST_F(Accepted, bios_with_both_disk_formats_and_a_nic) {
  VmSpec spec = named("bios");
  spec.vcpus = 2;
  spec.disks = {{"root", "", 8 * kMiB, DiskFormat::qcow2, ""}, {"data", "", kMiB, DiskFormat::raw, ""}};
  spec.nics = {{"vm", vm::NicModel::virtio, mac(1)}};
  EXPECT_EQ(run(spec), "");
}

TEST_F(Accepted, uefi_with_cdroms_seed_and_three_nics_that_boot_first) {
  if (!fs::exists("/usr/share/OVMF/OVMF_CODE_4M.fd")) GTEST_SKIP() << "no OVMF";
  VmSpec spec = named("uefi");
  spec.firmware = vm::Firmware::uefi;
  spec.cpu_model = "Nehalem-v1";
  spec.disks = {{"root", "", 8 * kMiB, DiskFormat::qcow2, ""}};
  spec.cdroms = {{"one", "a:b"}, {"two", "a:b"}};
  spec.nics = {{"vm", vm::NicModel::virtio, mac(1)},
               {"vm", vm::NicModel::e1000, mac(2)},
               {"vm", vm::NicModel::virtio, mac(3)}};
  spec.boot_order = {"network", "one", "root"};
  spec.cloud_init = vm::CloudInit{};
  EXPECT_EQ(run(spec), "");
}

TEST_F(Accepted, fullest_vm) {
  VmSpec spec = named("full");
  for (int i = 0; i < 32; ++i) {
    spec.disks.push_back(
        {"d" + std::to_string(i), "", kMiB, i % 2 == 0 ? DiskFormat::raw : DiskFormat::qcow2, ""});
  }
  for (int i = 0; i < 5; ++i) spec.cdroms.push_back({"c" + std::to_string(i), "a:b"});
  for (int i = 0; i < 16; ++i) {
    spec.nics.push_back({"vm", i % 3 == 1 ? vm::NicModel::e1000 : vm::NicModel::virtio, mac(i)});
  }
  spec.cloud_init = vm::CloudInit{};
  EXPECT_EQ(run(spec), "");
}

}  // namespace
}  // namespace hf::image
