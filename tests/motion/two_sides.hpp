#pragma once
// Two sides for one guest: both QEMUs of a move on this machine, as holdfastd starts them, in a network namespace,
// cgroups and a run directory of the test's own. A side is named by its VM's id; both have the same disk, and the same
// nic on one bridge. The hold page of each is the test's: it plays the guard. One thread.
//
// HOLDFAST_QEMU: another QEMU than the installed one. HOLDFAST_TEST_GUEST: the folder of the test guest's image.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <arpa/inet.h>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "base/testing/temp_folder.hpp"
#include "lab/command.hpp"
#include "lab/guest_image.hpp"
#include "lab/ledger_check.hpp"
#include "sys/process/cgroup.hpp"
#include "sys/qemu/engine_monitor.hpp"
#include "sys/qemu/qemu_hypervisor.hpp"

namespace hf::test {

constexpr auto kPatience = std::chrono::seconds(90);  // emulated guests on a busy machine
constexpr Duration kStep = std::chrono::seconds(60);  // one command to a QEMU
constexpr uid_t kUser = 54321;
constexpr const char* kGuestAddress = "10.78.9.1";

inline bool eventually(const std::function<bool()>& holds) {
  for (const auto deadline = std::chrono::steady_clock::now() + kPatience;
       std::chrono::steady_clock::now() < deadline;) {
    if (holds()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

class TwoSides : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root";
    const auto mount = process::cgroup2_mount();
    if (!mount) GTEST_SKIP() << mount.error().what;
    const char* guest = std::getenv("HOLDFAST_TEST_GUEST");
    auto image =
        lab::guest_image(guest != nullptr ? guest : "/var/lib/holdfast/lab/guest", [](const std::string&) {});
    if (!image) GTEST_SKIP() << image.error().what;
    image_ = *image;
    ASSERT_TRUE(own_network());
    ::chmod(folder_.path().c_str(), 0755);
    const char* qemu = std::getenv("HOLDFAST_QEMU");
    if (qemu != nullptr) options_.qemu_binary = qemu;
    options_.run_dir = folder_ / "run";
    options_.log_dir = folder_ / "log";
    options_.cgroup_root = *mount + "/hf-motion-" + std::to_string(::getpid());
    options_.uid = options_.gid = kUser;
    // QEMU's user may not be able to read the build folder.
    options_.shim = folder_ / "libholdfast_shim.so";
    std::filesystem::copy_file(HF_SHIM, options_.shim);
    options_.launch_limit = kStep;
    // One VM at two hosts, with the same UUID, which QEMU's own migration insists on.
    options_.command = [](const vm::VmSpec& spec, vm::LaunchContext context) {
      context.uuid = "6f1b7a52-3d2c-4a0e-9b52-0c7f3f1e9a01";
      return vm::qemu_command(spec, context);
    };
    std::filesystem::create_directories(folder_ / "store/vm-a");
    std::filesystem::create_symlink("vm-a", folder_ / "store/vm-b");
    ASSERT_TRUE(lab::run({"truncate", "-s", "8M", disk()}).ok());
    hypervisor_ = std::make_unique<qemu::QemuHypervisor>(options_);
    const auto adopted = hypervisor_->adopt([](const VmExit&) {}, [](const VmPause&) {});
    ASSERT_TRUE(adopted.ok()) << adopted.error().what;
  }

  void TearDown() override {
    if (!hypervisor_) return;
    for (const VmId& side : {a_, b_}) {
      const Status killed = hypervisor_->kill(side);
      EXPECT_TRUE(killed.ok() || killed.code() == Code::not_found)
          << side.text << ": " << killed.error().what;
    }
    hypervisor_.reset();
    ::rmdir((options_.cgroup_root + "/vms").c_str());
    ::rmdir(options_.cgroup_root.c_str());
    EXPECT_FALSE(std::filesystem::exists(options_.cgroup_root));
  }

  static bool own_network() {
    static const bool made = ::unshare(CLONE_NEWNET) == 0 &&
                             lab::run({"ip", "link", "set", "lo", "up"}).ok() &&
                             lab::run({"ip", "link", "add", "hfbr", "type", "bridge"}).ok() &&
                             lab::run({"ip", "address", "add", "10.78.9.254/24", "dev", "hfbr"}).ok() &&
                             lab::run({"ip", "link", "set", "hfbr", "up"}).ok();
    return made;
  }

  // `words`: the guest's options (lab/guest/guest.h).
  RunningVm launch(const VmId& side, const std::string& words, bool incoming) {
    LaunchRequest request;
    request.vm = side;
    request.epoch = Epoch{1};
    if (incoming) request.motion = TaskId("task-1");
    request.spec.name = "guest";
    request.spec.memory_mib = memory_mib_;
    request.spec.datastore = "store";
    request.spec.disks = {{"ledger", "", 8 << 20, vm::DiskFormat::raw, ""}};
    request.spec.nics = {{"lan", vm::NicModel::virtio, "52:54:00:00:09:01"}};
    request.spec.direct_kernel = vm::DirectKernel{image_.kernel, image_.initrd, image_.cmdline + " " + words};
    request.datastore_paths = {{"store", folder_ / "store"}};
    request.bridges = {{"lan", "hfbr", 0}};
    const auto running = hypervisor_->launch(request);
    EXPECT_TRUE(running.ok()) << running.error().what;
    if (running) pids_[side.text] = running->pid;
    return running ? *running : RunningVm{};
  }
  // Side a runs a guest that says `sign`.
  RunningVm boot(const std::string& words, const std::string& sign) {
    RunningVm running = launch(a_, words, false);
    let_write(a_, true);
    const Status resumed = hypervisor_->resume(a_);
    EXPECT_TRUE(resumed.ok()) << (resumed.ok() ? "" : resumed.error().what);
    EXPECT_TRUE(eventually([&] { return says(a_, sign); })) << console(a_);
    return running;
  }

  // What the guard would say in the hold page: disks may be changed, or every change is held.
  void let_write(const VmId& side, bool allowed) {
    const process::UniqueFd page(::open(options_.dir_of(side).hold_page().c_str(), O_RDWR | O_CLOEXEC));
    const std::uint64_t deadline = allowed ? UINT64_MAX : 0;
    ASSERT_EQ(::pwrite(page.get(), &deadline, sizeof deadline, 0), static_cast<ssize_t>(sizeof deadline));
  }

  std::unique_ptr<qemu::EngineMonitor> engine(const VmId& side) {
    auto monitor = qemu::EngineMonitor::connect(options_.dir_of(side).engine_socket(), kStep);
    EXPECT_TRUE(monitor.ok()) << monitor.error().what;
    return monitor ? std::move(*monitor) : nullptr;
  }

  std::string disk() const { return folder_ / "store/vm-a/ledger.raw"; }
  std::string console(const VmId& side) {
    const auto tail = hypervisor_->console_tail(side, 1 << 20);
    return tail ? *tail : "";
  }
  bool says(const VmId& side, const std::string& sign) {
    return console(side).find(sign) != std::string::npos;
  }
  std::uint64_t ledger_sequence() {
    const auto report = lab::check_ledger(disk());
    return report ? report->last_sequence : 0;
  }
  bool disk_goes_on() {
    const std::uint64_t before = ledger_sequence();
    return eventually([&] { return ledger_sequence() > before + 5; });
  }

  // Whether the guest sends back what is sent to its echo port.
  bool network_works() {
    return eventually([] {
      const process::UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
      sockaddr_in guest{};
      guest.sin_family = AF_INET;
      guest.sin_port = htons(7);
      ::inet_pton(AF_INET, kGuestAddress, &guest.sin_addr);
      char answer[8] = {};
      pollfd readable{fd.get(), POLLIN, 0};
      return ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&guest), sizeof guest) == 0 &&
             ::send(fd.get(), "hello", 5, 0) == 5 && ::poll(&readable, 1, 1000) == 1 &&
             ::recv(fd.get(), answer, sizeof answer, 0) == 5;
    });
  }

  const VmId a_ = VmId("vm-a"), b_ = VmId("vm-b");
  std::map<std::string, int> pids_;  // of the latest QEMU of each side
  std::uint64_t memory_mib_ = 128;
  TempFolder folder_;
  lab::GuestImage image_;
  qemu::QemuOptions options_;
  std::unique_ptr<qemu::QemuHypervisor> hypervisor_;
};

}  // namespace hf::test
