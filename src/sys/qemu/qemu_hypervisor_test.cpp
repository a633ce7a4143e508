// Goal: QemuHypervisor keeps its contract (port/hypervisor.hpp) with real QEMU processes. Method: QEMU under
// TCG with a boot sector as guest; a network namespace, a cgroup and a run directory of the test's own.
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <sstream>
#include <thread>

#include "base/testing/temp_folder.hpp"
#include "sys/process/hurry.hpp"
#include "sys/process/identity.hpp"
#include "sys/process/run.hpp"
#include "sys/process/small_file.hpp"
#include "sys/qemu/disk_copy.hpp"
#include "sys/qemu/engine_monitor.hpp"
#include "sys/qemu/qemu_hypervisor.hpp"
#include "sys/qemu/shim_client.hpp"
#include "sys/qemu/start_qemu.hpp"
#include "sys/qemu/tap.hpp"

namespace hf::qemu {
namespace {
using Clock = std::chrono::steady_clock;
constexpr auto kPatience = 20s;
constexpr uid_t kUser = 54321;

// Writes "@!\n" (letters that the BIOS does not use) to the serial port; switches off on the power button
// (ACPI, ports 0x600 to 0x604) or on a byte received.
constexpr unsigned char kBootSector[] = {
    0xfa, 0xba, 0xf8, 0x03, 0xb0, '@',  0xee, 0xb0, '!',  0xee, 0xb0, '\n', 0xee,  // cli; out 0x3f8: @ ! \n
    0xba, 0x02, 0x06, 0xb8, 0x00, 0x01, 0xef,                                      // enable the power button
    0xba, 0x00, 0x06, 0xed, 0xf6, 0xc4, 0x01, 0x75, 0x08,                          // pressed? off
    0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xef,                                // nothing received? again
    0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, 0xf4};                               // off

// A machine that boots the sector in a tenth of a second and whose BIOS does not write to the serial port.
Result<std::vector<std::string>> small_qemu(const vm::VmSpec&, const vm::LaunchContext& context) {
  std::vector<std::string> argv = {context.qemu_binary, "-S",          "-nodefaults", "-display", "none",
                                   "-machine",          "pc,accel=tcg"};
  const auto add = [&](std::initializer_list<std::string> words) { argv.insert(argv.end(), words); };
  add({"-m", "8", "-sandbox", "on", "-qmp", "unix:" + context.run_dir + "/qmp.sock,server=on,wait=off"});
  add({"-chardev", "socket,id=console,path=" + context.run_dir + "/console.sock,server=on,wait=off,logfile=" +
                       context.run_dir + "/console.log,logappend=on"});
  add({"-serial", "chardev:console"});
  for (const auto& disk : context.disks) {
    add({"-drive", "if=ide,format=raw,file.locking=off,file=" + disk.path});
  }
  for (const auto& nic : context.nics) {
    add({"-netdev", "tap,id=net0,fd=" + std::to_string(nic.tap_fd), "-device",
         "virtio-net-pci,romfile=,netdev=net0"});
  }
  return argv;
}

// Its disk's first read fails, for want of room. With a geometry, or QEMU itself would read first, to guess one.
Result<std::vector<std::string>> qemu_with_a_failing_read(const vm::VmSpec& spec,
                                                          const vm::LaunchContext& context) {
  auto argv = small_qemu(spec, context);
  const auto drive = std::find(argv->begin(), argv->end(), "-drive");
  argv->erase(drive, drive + 2);
  argv->insert(argv->end(),
               {"-blockdev",
                R"({"driver":"raw","node-name":"d-root","file":{"driver":"blkdebug","inject-error":)"
                R"([{"event":"read_aio","errno":28,"once":true}],"image":{"driver":"file","locking":"off",)"
                R"("filename":")" +
                    context.disks[0].path + R"("}}})",
                "-device", "ide-hd,drive=d-root,rerror=stop,werror=stop,cyls=2,heads=16,secs=63"});
  return argv;
}

// What was reported, in order.
template <class Report>
class Reports {
 public:
  std::function<void(const Report&)> taker() {
    return [this](const Report& report) {
      const std::lock_guard lock(mutex_);
      all_.push_back(report);
      changed_.notify_all();
    };
  }
  std::optional<Report> next(Duration limit = kPatience) {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, limit, [&] { return !all_.empty(); })) return {};
    const Report report = all_.front();
    all_.pop_front();
    return report;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Report> all_;
};

bool eventually(const std::function<bool()>& holds) {
  for (const auto deadline = Clock::now() + kPatience; Clock::now() < deadline;) {
    if (holds()) return true;
    std::this_thread::sleep_for(5ms);
  }
  return false;
}

class QemuHypervisorTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto mount = process::cgroup2_mount();
    if (::geteuid() != 0) GTEST_SKIP() << "needs root";
    if (!mount) GTEST_SKIP() << mount.error().what;
    if (::access("/usr/bin/qemu-system-x86_64", X_OK) != 0) GTEST_SKIP() << "needs qemu-system-x86";
    ASSERT_TRUE(own_network());
    ::chmod(folder_.c_str(), 0755);
    options_.run_dir = folder_ + "/run";
    options_.log_dir = folder_ + "/log";
    options_.cgroup_root = *mount + "/hf-test-" + std::to_string(::getpid());
    options_.uid = options_.gid = kUser;
    options_.command = small_qemu;
    std::filesystem::create_directories(folder_ + "/store/vm-1");
    write_disk(folder_ + "/store/vm-1/root.raw");
    restart_daemon();
  }

  void TearDown() override {
    hypervisor_.reset();
    if (IsSkipped()) return;
    for (const char* vm : {"vm-1", "vm-2"})
      (void)options_.cgroup_of(VmId(vm)).kill_all(5s);  // a failure shows below: the folder is still there
    for (const char* vm : {"/vms/vm-1", "/vms/vm-2", "/vms", ""})
      ::rmdir((options_.cgroup_root + vm).c_str());
    EXPECT_FALSE(std::filesystem::exists(options_.cgroup_root));
  }

  // The process's own network, with one bridge. It ends with the process.
  static bool own_network() {
    static const bool made = [] {
      const process::UniqueFd control(
          ::unshare(CLONE_NEWNET) == 0 ? ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0) : -1);
      return control && ::ioctl(control.get(), SIOCBRADDBR, "hfbr") == 0;
    }();
    return made;
  }

  // At least a cylinder, or the BIOS cannot read a virtio disk.
  static void write_disk(const std::string& path) {
    std::string image(1 << 20, '\0');
    std::copy(std::begin(kBootSector), std::end(kBootSector), image.begin());
    image[510] = '\x55';
    image[511] = '\xaa';
    std::ofstream(path, std::ios::binary) << image;
  }

  void restart_daemon() {
    hypervisor_.reset();
    hypervisor_ = std::make_unique<QemuHypervisor>(options_);
    const auto adopted = hypervisor_->adopt(exits_.taker(), pauses_.taker());
    ASSERT_TRUE(adopted.ok()) << adopted.error().what;
    adopted_ = *adopted;
  }

  LaunchRequest request(const std::string& vm = "vm-1") const {
    LaunchRequest made;
    made.vm = VmId(vm);
    made.epoch = Epoch{3};
    made.spec.name = "web";
    made.spec.memory_mib = 16;
    made.spec.datastore = "store";
    made.spec.disks = {{"root", "", 1 << 20, vm::DiskFormat::raw, ""}};
    made.datastore_paths = {{"store", folder_ + "/store"}};
    return made;
  }

  RunningVm start() {
    const auto running = hypervisor_->launch(request());
    EXPECT_TRUE(running.ok()) << (running.ok() ? "" : running.error().what);
    if (!running) return {};
    const Status resumed = hypervisor_->resume(vm_);
    EXPECT_TRUE(resumed.ok()) << (resumed.ok() ? "" : resumed.error().what);
    EXPECT_TRUE(eventually([&] { return greetings() == 1; }));
    return *running;
  }

  std::ptrdiff_t greetings() {
    const auto tail = hypervisor_->console_tail(vm_, 4096);
    return tail ? std::count(tail->begin(), tail->end(), '@') : 0;
  }

  void expect_nothing_left(const std::string& vm = "vm-1") {
    EXPECT_FALSE(std::filesystem::exists(options_.dir_of(VmId(vm)).path));
    EXPECT_FALSE(options_.cgroup_of(VmId(vm)).exists());
    EXPECT_EQ(::if_nametoindex(tap_name(VmId(vm), 0).c_str()), 0U);
  }

  void expect_exit(ExitKind kind) {
    const auto exit = exits_.next();
    ASSERT_TRUE(exit.has_value());
    EXPECT_EQ(exit->vm, vm_);
    EXPECT_EQ(exit->epoch, Epoch{3});
    EXPECT_EQ(exit->kind, kind) << exit->text;
    expect_nothing_left();
  }

  const VmId vm_ = VmId("vm-1");
  const test::TempFolder temp_;
  const std::string folder_ = temp_.path();
  QemuOptions options_;
  Reports<VmExit> exits_;
  Reports<VmPause> pauses_;
  std::unique_ptr<QemuHypervisor> hypervisor_;
  std::vector<RunningVm> adopted_;
};

TEST_F(QemuHypervisorTest, launched_guest_stands_still_until_resumed) {
  const auto running = hypervisor_->launch(request());
  ASSERT_TRUE(running.ok()) << running.error().what;
  EXPECT_EQ(running->epoch, Epoch{3});
  EXPECT_EQ(running->accelerator, "tcg");
  EXPECT_EQ(running->memory_tracker, "none: QEMU runs without Holdfast's shim.");
  EXPECT_EQ(greetings(), 0);
  EXPECT_EQ(process::read_small_file(running->hold_page)->size(), 4096U);
  const auto members = process::Cgroup(running->cgroup).processes();
  ASSERT_TRUE(members.ok());
  EXPECT_EQ(*members, std::vector<int>{running->pid});
  struct stat owner{};
  ASSERT_EQ(::stat(("/proc/" + std::to_string(running->pid)).c_str(), &owner), 0);
  EXPECT_EQ(owner.st_uid, kUser);
  ASSERT_TRUE(hypervisor_->resume(vm_).ok());
  EXPECT_TRUE(eventually([&] { return greetings() == 1; }));
  ASSERT_TRUE(hypervisor_->kill(vm_).ok());
  expect_exit(ExitKind::killed);
  EXPECT_TRUE(hypervisor_->console_tail(vm_, 100)->ends_with("@!\n"));  // kept for later
}

TEST_F(QemuHypervisorTest, real_command_line_runs_under_this_user) {
  options_.command = vm::qemu_command;
  restart_daemon();
  const auto running = hypervisor_->launch(request());
  ASSERT_TRUE(running.ok()) << running.error().what;
  ASSERT_TRUE(hypervisor_->resume(vm_).ok());
  const bool booted = eventually([&] { return greetings() == 1; });
  ASSERT_TRUE(booted) << *hypervisor_->console_tail(vm_, 4096);
  ASSERT_TRUE(hypervisor_->ask_to_stop(vm_).ok());
  expect_exit(ExitKind::guest_shutdown);
}

TEST_F(QemuHypervisorTest, running_vm_says_how_its_memory_can_be_tracked_also_to_a_later_daemon) {
  options_.command = vm::qemu_command;
  // QEMU's user may not be able to read the build folder.
  options_.shim = folder_ + "/libholdfast_shim.so";
  std::filesystem::copy_file(HF_SHIM, options_.shim);
  restart_daemon();
  const auto running = hypervisor_->launch(request());
  ASSERT_TRUE(running.ok()) << running.error().what;
  const auto answer = ask_shim(options_.dir_of(vm_).memory_socket(), 10s);
  ASSERT_TRUE(answer.ok()) << answer.error().what;
  EXPECT_EQ(running->memory_tracker, describe_tracking(answer));
  ASSERT_EQ(answer->ram.size(), 1U);
  EXPECT_EQ(answer->ram[0].bytes, 16U << 20);
  EXPECT_EQ(answer->qemu_pid, running->pid);
  ASSERT_TRUE(hypervisor_->resume(vm_).ok());
  restart_daemon();
  ASSERT_EQ(adopted_.size(), 1U);
  EXPECT_EQ(adopted_[0].memory_tracker, running->memory_tracker);
}

// The nice values of a process's threads.
std::set<int> niceness(int pid) {
  std::set<int> all;
  for (const auto& task : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task")) {
    all.insert(::getpriority(PRIO_PROCESS, static_cast<id_t>(std::stoul(task.path().filename()))));
  }
  return all;
}

TEST_F(QemuHypervisorTest, guest_that_a_killed_motion_had_hurried_is_hurried_no_more_once_it_is_adopted) {
  options_.nice = 5;
  restart_daemon();
  const int pid = start().pid;
  EXPECT_EQ(niceness(pid), std::set<int>{5});
  process::hurry(pid);
  if (niceness(pid) != std::set<int>{-20}) GTEST_SKIP() << "this machine gives no process a higher priority";
  restart_daemon();
  EXPECT_EQ(niceness(pid), std::set<int>{5});
}

TEST_F(QemuHypervisorTest, reset_boots_the_guest_again) {
  start();
  ASSERT_TRUE(hypervisor_->reset(vm_).ok());
  EXPECT_TRUE(eventually([&] { return greetings() == 2; }));
}

TEST_F(QemuHypervisorTest, asked_to_stop_without_an_agent_presses_the_power_button) {
  start();
  ASSERT_TRUE(hypervisor_->ask_to_stop(vm_).ok());
  expect_exit(ExitKind::guest_shutdown);
}

TEST_F(QemuHypervisorTest, console_reaches_the_guest_both_ways) {
  start();
  const auto console = hypervisor_->open_console(vm_);
  ASSERT_TRUE(console.ok()) << console.error().what;
  const process::UniqueFd fd(*console);
  ASSERT_TRUE(hypervisor_->reset(vm_).ok());
  for (char letter = 0; letter != '@';) {
    pollfd readable{fd.get(), POLLIN, 0};
    ASSERT_EQ(::poll(&readable, 1, 30'000), 1);
    ASSERT_EQ(::read(fd.get(), &letter, 1), 1);
  }
  ASSERT_EQ(::write(fd.get(), "x", 1), 1);  // switches the guest off
  expect_exit(ExitKind::guest_shutdown);
}

TEST_F(QemuHypervisorTest, guest_paused_by_its_disk_is_told_of_also_to_a_new_daemon_and_continued) {
  options_.command = qemu_with_a_failing_read;
  restart_daemon();
  ASSERT_TRUE(hypervisor_->launch(request()).ok());
  ASSERT_TRUE(hypervisor_->resume(vm_).ok());
  for (int daemons = 1; daemons <= 2; ++daemons) {
    const auto paused = pauses_.next();
    ASSERT_TRUE(paused && paused->error);
    EXPECT_EQ(paused->vm, vm_);
    EXPECT_EQ(paused->epoch, Epoch{3});
    EXPECT_EQ(paused->error->disk, "root");
    EXPECT_TRUE(paused->error->no_room);
    if (daemons == 1) restart_daemon();
  }
  EXPECT_EQ(greetings(), 0);
  EXPECT_EQ(hypervisor_->continue_paused(vm_, Epoch{2}).code(), Code::conflict);
  const Status continued = hypervisor_->continue_paused(vm_, Epoch{3});
  ASSERT_TRUE(continued.ok()) << continued.error().what;
  const auto went_on = pauses_.next();
  ASSERT_TRUE(went_on);
  EXPECT_FALSE(went_on->error);
  EXPECT_TRUE(eventually([&] { return greetings() == 1; }));
  EXPECT_TRUE(hypervisor_->continue_paused(vm_, Epoch{3}).ok());
}

TEST_F(QemuHypervisorTest, paused_guest_that_is_reset_boots_again) {
  options_.command = qemu_with_a_failing_read;
  restart_daemon();
  ASSERT_TRUE(hypervisor_->launch(request()).ok());
  ASSERT_TRUE(hypervisor_->resume(vm_).ok());
  ASSERT_TRUE(pauses_.next());
  ASSERT_TRUE(hypervisor_->reset(vm_).ok());
  const auto went_on = pauses_.next();
  ASSERT_TRUE(went_on);
  EXPECT_FALSE(went_on->error);
  EXPECT_TRUE(eventually([&] { return greetings() == 1; }));
}

TEST_F(QemuHypervisorTest, guest_that_waits_for_its_guard_is_not_continued) {
  ASSERT_TRUE(hypervisor_->launch(request()).ok());
  EXPECT_TRUE(hypervisor_->continue_paused(vm_, Epoch{3}).ok());
  // A new daemon finds it as it was launched: never resumed.
  restart_daemon();
  EXPECT_TRUE(adopted_.empty());
  EXPECT_FALSE(pauses_.next(0s));
}

// A running VM with a disk of 4 MiB that gets another image: QEMU's own jobs.
class DiskCopyTest : public QemuHypervisorTest {
 protected:
  void SetUp() override {
    QemuHypervisorTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    options_.command = vm::qemu_command;
    restart_daemon();
    // Ballast that differs everywhere, so that an image which lacks a part of it is seen.
    std::ofstream disk(old_, std::ios::binary | std::ios::in);
    disk.seekp(1 << 20);
    for (unsigned i = 0; i < 3U << 18U; ++i) disk << fmt::format("{:4x}", i & 0xffffU);
    disk.close();
    ASSERT_EQ(std::filesystem::file_size(old_), 4U << 20U);
    const auto running = hypervisor_->launch(request());
    ASSERT_TRUE(running.ok()) << running.error().what;
    pid_ = running->pid;
    ASSERT_TRUE(hypervisor_->resume(vm_).ok());
    make(new_, "qcow2");
  }

  static bool img(std::vector<std::string> words) {
    words.insert(words.begin(), "qemu-img");
    const auto run = process::run_tool(words);
    return run.ok() && run->ok();
  }
  void make(const std::string& path, const std::string& format) {
    ASSERT_TRUE(img({"create", "-q", "-f", format, path, "4M"}));
  }
  CopyRequest copy_to(const std::string& path, vm::DiskFormat format, const TaskId& id) const {
    CopyRequest wanted;
    wanted.vm = vm_;
    wanted.id = id;
    wanted.disks = {{"root", path, format}};
    return wanted;
  }
  bool comes_to(CopyState::Phase phase, const TaskId& id) {
    return eventually([&] {
      const auto state = hypervisor_->copy_state(vm_, id);
      return state.ok() && state->phase == phase;
    });
  }
  void hold(const CopyRequest& wanted) {
    const Status begun = hypervisor_->begin_copy(wanted);
    ASSERT_TRUE(begun.ok()) << begun.error().what;
    ASSERT_TRUE(comes_to(CopyState::Phase::ready, wanted.id));
    const Status held = hypervisor_->hold_copy(vm_, wanted.id);
    ASSERT_TRUE(held.ok()) << held.error().what;
    ASSERT_EQ(hypervisor_->copy_state(vm_, wanted.id)->phase, CopyState::Phase::held);
  }
  bool uses(const std::string& path) const {
    for (const auto& fd : std::filesystem::directory_iterator("/proc/" + std::to_string(pid_) + "/fd")) {
      std::error_code gone;
      if (std::filesystem::read_symlink(fd.path(), gone) == path) return true;
    }
    return false;
  }
  static bool equal(const std::string& one, const std::string& other) {
    return img({"compare", "-U", "-q", one, other});
  }
  bool runs() {
    const auto monitor = QmpClient::connect(options_.dir_of(vm_).engine_socket(), [](auto&, auto&) {});
    return monitor.ok() && query_status(**monitor, 5s) == "running";
  }

  const std::string old_ = folder_ + "/store/vm-1/root.raw";
  const std::string new_ = folder_ + "/store/vm-1/root.t-1.qcow2";
  const TaskId first_{"t-1"};
  int pid_ = 0;
};

TEST_F(DiskCopyTest, images_that_are_held_are_equal_and_the_guest_goes_on_with_the_new_one) {
  hold(copy_to(new_, vm::DiskFormat::qcow2, first_));
  EXPECT_TRUE(equal(old_, new_));
  EXPECT_TRUE(uses(old_) && uses(new_));
  const auto ended = hypervisor_->end_copy(vm_, first_, true);
  ASSERT_TRUE(ended.ok()) << ended.error().what;
  EXPECT_TRUE(uses(new_) && !uses(old_));
  EXPECT_TRUE(runs());
  EXPECT_TRUE(hypervisor_->end_copy(vm_, first_, true).ok());
  EXPECT_EQ(hypervisor_->copy_state(vm_, first_)->phase, CopyState::Phase::none);
}

TEST_F(DiskCopyTest, copy_that_is_called_off_leaves_the_old_image_whenever_it_comes) {
  for (const bool held : {false, true}) {
    const auto wanted = copy_to(new_, vm::DiskFormat::qcow2, first_);
    if (held) hold(wanted);
    else ASSERT_TRUE(hypervisor_->begin_copy(wanted).ok());
    const auto ended = hypervisor_->end_copy(vm_, first_, false);
    ASSERT_TRUE(ended.ok()) << ended.error().what;
    EXPECT_TRUE(uses(old_) && !uses(new_));
    EXPECT_TRUE(runs());
  }
}

TEST_F(DiskCopyTest, later_daemon_finds_the_copy_and_settles_it_either_way) {
  for (const bool use_new : {false, true}) {
    hold(copy_to(new_, vm::DiskFormat::qcow2, first_));
    restart_daemon();
    EXPECT_EQ(hypervisor_->copy_state(vm_, first_)->phase, CopyState::Phase::held);
    const auto ended = hypervisor_->end_copy(vm_, first_, use_new);
    ASSERT_TRUE(ended.ok()) << ended.error().what;
    EXPECT_EQ(uses(new_), use_new);
    EXPECT_NE(uses(old_), use_new);
  }
}

TEST_F(DiskCopyTest, disk_goes_there_and_back_and_is_called_by_its_name) {
  const std::string back = folder_ + "/store/vm-1/root.t-2.raw";
  hold(copy_to(new_, vm::DiskFormat::qcow2, first_));
  ASSERT_TRUE(hypervisor_->end_copy(vm_, first_, true).ok());
  make(back, "raw");
  const TaskId second("t-2");
  hold(copy_to(back, vm::DiskFormat::raw, second));
  ASSERT_TRUE(hypervisor_->end_copy(vm_, second, true).ok());
  EXPECT_TRUE(uses(back) && !uses(new_));
  EXPECT_TRUE(equal(old_, back));
  EXPECT_EQ(disk_of_node("d-root_1"), "root");
}

TEST_F(DiskCopyTest, guest_that_uses_the_wrong_image_is_told_of) {
  hold(copy_to(new_, vm::DiskFormat::qcow2, first_));
  ASSERT_TRUE(hypervisor_->end_copy(vm_, first_, true).ok());
  EXPECT_EQ(hypervisor_->end_copy(vm_, first_, false).code(), Code::failed);
}

TEST_F(DiskCopyTest, image_that_cannot_be_opened_is_refused_and_nothing_of_it_stays) {
  const TaskId third("t-3");
  const auto wanted = copy_to(folder_ + "/store/vm-1/root.t-3.qcow2", vm::DiskFormat::qcow2, third);
  make(wanted.disks[0].path, "raw");
  const Status begun = hypervisor_->begin_copy(wanted);
  ASSERT_FALSE(begun.ok());
  EXPECT_NE(begun.error().what.find("root"), std::string::npos);
  EXPECT_TRUE(hypervisor_->end_copy(vm_, third, false).ok());
  EXPECT_FALSE(uses(wanted.disks[0].path));
  EXPECT_TRUE(uses(old_) && runs());
}

TEST_F(QemuHypervisorTest, qemu_killed_from_outside_is_a_crash) {
  const RunningVm running = start();
  ASSERT_EQ(::kill(running.pid, SIGKILL), 0);
  expect_exit(ExitKind::qemu_crash);
  EXPECT_EQ(hypervisor_->resume(vm_).code(), Code::not_found);
}

TEST_F(QemuHypervisorTest, qemu_told_to_end_from_outside_is_a_crash_with_its_words) {
  const RunningVm running = start();
  ASSERT_EQ(::kill(running.pid, SIGTERM), 0);
  const auto exit = exits_.next();
  ASSERT_TRUE(exit.has_value());
  EXPECT_EQ(exit->kind, ExitKind::qemu_crash);
  EXPECT_NE(exit->text.find("signal 15"), std::string::npos) << exit->text;
}

TEST_F(QemuHypervisorTest, second_launch_is_refused_by_this_daemon_and_by_another) {
  start();
  EXPECT_EQ(hypervisor_->launch(request()).code(), Code::exists);
  // As another daemon would that does not know of it; refused when frozen, and by process when the cgroup is
  // gone.
  EXPECT_EQ(start_qemu(options_, request(), nullptr).code(), Code::exists);
  ASSERT_TRUE(options_.cgroup_of(vm_).freeze(true).ok());
  EXPECT_EQ(start_qemu(options_, request(), nullptr).code(), Code::exists);
  ASSERT_TRUE(options_.cgroup_of(vm_).freeze(false).ok());
  auto elsewhere = options_;
  elsewhere.cgroup_root += "/elsewhere";
  EXPECT_EQ(start_qemu(elsewhere, request(), nullptr).code(), Code::exists);
  EXPECT_EQ(greetings(), 1);
}

TEST_F(QemuHypervisorTest, new_daemon_takes_up_the_running_vm) {
  const RunningVm running = start();
  restart_daemon();
  ASSERT_EQ(adopted_.size(), 1U);
  EXPECT_EQ(adopted_[0].vm, vm_);
  EXPECT_EQ(adopted_[0].epoch, Epoch{3});
  EXPECT_EQ(adopted_[0].pid, running.pid);
  EXPECT_EQ(adopted_[0].cgroup, running.cgroup);
  EXPECT_EQ(adopted_[0].hold_page, running.hold_page);
  EXPECT_EQ(hypervisor_->launch(request()).code(), Code::exists);
  ASSERT_TRUE(hypervisor_->reset(vm_).ok());
  EXPECT_TRUE(eventually([&] { return greetings() == 2; }));
  ASSERT_TRUE(hypervisor_->kill(vm_).ok());
  expect_exit(ExitKind::killed);
}

TEST_F(QemuHypervisorTest, end_without_a_daemon_is_learned_by_the_next_one) {
  const RunningVm running = start();
  const int console = *hypervisor_->open_console(vm_);
  hypervisor_.reset();
  const auto pidfd = process::open_process(running.pid, *process::start_time_of(running.pid));
  ASSERT_TRUE(pidfd.ok());
  ASSERT_EQ(::write(console, "x", 1), 1);
  ASSERT_TRUE(process::has_ended(pidfd->get(), kPatience));
  ::close(console);
  restart_daemon();
  EXPECT_TRUE(adopted_.empty());
  expect_exit(ExitKind::guest_shutdown);
}

TEST_F(QemuHypervisorTest, frozen_vm_is_adopted_and_killed) {
  const RunningVm running = start();
  ASSERT_TRUE(process::Cgroup(running.cgroup).freeze(true).ok());
  for (int round = 0; round < 4; ++round) {  // more daemons than QEMU's socket queues
    restart_daemon();
    ASSERT_EQ(adopted_.size(), 1U);
  }
  ASSERT_TRUE(hypervisor_->kill(vm_).ok());
  expect_exit(ExitKind::killed);
}

TEST_F(QemuHypervisorTest, thawed_vm_obeys_the_daemon_that_adopted_it_frozen) {
  const RunningVm running = start();
  ASSERT_TRUE(process::Cgroup(running.cgroup).freeze(true).ok());
  restart_daemon();
  ASSERT_TRUE(process::Cgroup(running.cgroup).freeze(false).ok());
  ASSERT_TRUE(hypervisor_->reset(vm_).ok());
  EXPECT_TRUE(eventually([&] { return greetings() == 2; }));
}

TEST_F(QemuHypervisorTest, failed_launch_says_why_and_leaves_nothing) {
  const auto launch_with = [&](auto change) {
    auto options = options_;
    auto wanted = request();
    change(options, wanted);
    QemuHypervisor hypervisor(options);
    EXPECT_TRUE(hypervisor.adopt(exits_.taker(), pauses_.taker()).ok());
    const auto result = hypervisor.launch(wanted);
    EXPECT_FALSE(result.ok());
    expect_nothing_left();
    return result.ok() ? Error{} : result.error();
  };
  const auto contains = [](const Error& error, const std::string& part) {
    EXPECT_NE(error.what.find(part), std::string::npos) << error.what;
  };
  contains(launch_with([](auto& options, auto&) { options.qemu_binary = "/no/such/qemu"; }), "/no/such/qemu");
  contains(launch_with([](auto& options, auto&) { options.qemu_binary = "/bin/false"; }), "ended at once");
  contains(launch_with([](auto&, auto& wanted) { wanted.spec.disks[0].name = "lost"; }), "lost.raw");
  contains(launch_with([](auto&, auto& wanted) { wanted.spec.nics = {{"lan", {}, "52:54:00:00:00:01"}}; }),
           "\"lan\"");
  contains(launch_with([](auto&, auto& wanted) {
             wanted.spec.nics = {{"lan", {}, "52:54:00:00:00:01"}};
             wanted.bridges = {{"lan", "nobridge", 0}};
           }),
           "no bridge nobridge");
  contains(launch_with([](auto& options, auto&) {
             options.command = [](const auto& spec, const auto& context) {
               auto argv = small_qemu(spec, context);
               argv->push_back("-nonsense");
               return argv;
             };
           }),
           "-nonsense: invalid option");
  contains(launch_with([](auto& options, auto&) {
             options.launch_limit = 300ms;
             options.command = [](const auto&, const auto&) {
               return Result<std::vector<std::string>>({"/bin/sh", "-c", "echo I sleep; sleep 1000"});
             };
           }),
           "I sleep");
  contains(launch_with([](auto& options, auto&) {
             options.command = [](const auto& spec, const auto& context) {
               auto argv = small_qemu(spec, context);
               std::erase(*argv, "-S");
               return argv;
             };
           }),
           "already runs");
  EXPECT_FALSE(exits_.next(0s).has_value());
}

TEST_F(QemuHypervisorTest, nic_is_on_the_bridge_as_long_as_qemu_lives) {
  auto wanted = request();
  wanted.spec.nics = {{"lan", vm::NicModel::virtio, "52:54:00:00:00:01"}};
  wanted.bridges = {{"lan", "hfbr", 0}};
  const auto running = hypervisor_->launch(wanted);
  ASSERT_TRUE(running.ok()) << running.error().what;
  ifreq tap{};
  tap_name(vm_, 0).copy(tap.ifr_name, IFNAMSIZ - 1);
  const process::UniqueFd control(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::ioctl(control.get(), SIOCGIFHWADDR, &tap), 0);
  EXPECT_EQ(static_cast<unsigned char>(tap.ifr_hwaddr.sa_data[0]), 0xfe);
  ASSERT_EQ(::ioctl(control.get(), SIOCGIFFLAGS, &tap), 0);
  EXPECT_TRUE(tap.ifr_flags & IFF_UP);
  ASSERT_TRUE(hypervisor_->kill(vm_).ok());
  expect_exit(ExitKind::killed);
}

TEST_F(QemuHypervisorTest, launch_record_of_a_reused_pid_is_a_dead_vm_and_the_other_process_lives) {
  // Our own pid, with the start time of another process.
  const RunDir dir = options_.dir_of(vm_);
  std::filesystem::create_directories(dir.path);
  const LaunchRecord record{vm_,   Epoch{3}, ::getpid(), *process::start_time_of(::getpid()) - 1,
                            "tcg", "",       {},       {}};
  ASSERT_TRUE(process::replace_file(dir.launch_record(), encode(record), 0640).ok());
  restart_daemon();
  EXPECT_TRUE(adopted_.empty());
  expect_exit(ExitKind::qemu_crash);
}

TEST_F(QemuHypervisorTest, launch_cut_short_is_cleaned_up_without_a_report) {
  start();
  hypervisor_.reset();
  std::filesystem::remove(options_.dir_of(vm_).launch_record());
  ASSERT_TRUE(options_.cgroup_of(VmId("vm-2")).create().ok());  // and a cgroup that has no run directory
  restart_daemon();
  EXPECT_TRUE(adopted_.empty());
  expect_nothing_left();
  expect_nothing_left("vm-2");
  EXPECT_FALSE(exits_.next(0s).has_value());
}

TEST_F(QemuHypervisorTest, kill_during_a_launch_ends_it) {
  options_.command = [](const auto&, const auto&) {
    return Result<std::vector<std::string>>({"/bin/sh", "-c", "sleep 1000"});
  };
  restart_daemon();
  std::optional<Code> code;
  std::thread launching([&] { code = hypervisor_->launch(request()).code(); });
  EXPECT_TRUE(eventually([&] { return std::filesystem::exists(options_.dir_of(vm_).launch_record()); }));
  EXPECT_TRUE(hypervisor_->kill(vm_).ok());
  launching.join();
  EXPECT_EQ(code, Code::failed);
  expect_nothing_left();
}

TEST_F(QemuHypervisorTest, vm_that_does_not_run_here_is_not_found) {
  EXPECT_EQ(hypervisor_->kill(vm_).code(), Code::not_found);
  EXPECT_EQ(hypervisor_->resume(vm_).code(), Code::not_found);
  EXPECT_EQ(hypervisor_->continue_paused(vm_, Epoch{3}).code(), Code::not_found);
  EXPECT_EQ(hypervisor_->ask_to_stop(vm_).code(), Code::not_found);
  EXPECT_EQ(hypervisor_->open_console(vm_).code(), Code::not_found);
  EXPECT_EQ(hypervisor_->console_tail(vm_, 10).code(), Code::not_found);
  auto bad = request("../x");
  EXPECT_EQ(hypervisor_->launch(bad).code(), Code::invalid);
}

// What a motion's engine carries is the memory backend. Whatever else the guest can write would stay behind: there is
// nothing, but with UEFI its flash, which the pre-checks refuse (core/motion/checks.cpp).
TEST_F(QemuHypervisorTest, guest_of_a_real_command_line_has_no_writable_memory_beside_the_backend) {
  options_.command = vm::qemu_command;
  restart_daemon();
  ASSERT_TRUE(hypervisor_->launch(request()).ok());
  const auto monitor = QmpClient::connect(options_.dir_of(VmId("vm-1")).engine_socket(), {});
  ASSERT_TRUE(monitor.ok());
  const auto answer =
      (*monitor)->execute("human-monitor-command", R"({"command-line":"info ramblock"})", kPatience);
  ASSERT_TRUE(answer.ok()) << answer.error().what;
  std::istringstream lines(nlohmann::json::parse(*answer).get<std::string>());
  std::set<std::string> writable;
  for (std::string line, name; std::getline(lines, line);) {
    std::istringstream words(line);
    words >> name;
    const bool rom = name == "pc.bios" || name == "isa-bios" || name == "pc.rom" || name.starts_with("/rom@") ||
                     name.ends_with(".rom") || name == "Block";
    if (!rom && line.find_first_not_of(" \r") != std::string::npos) writable.insert(name);
  }
  EXPECT_EQ(writable, std::set<std::string>{"mem"});
}

}  // namespace
}  // namespace hf::qemu
