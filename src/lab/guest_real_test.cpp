// Goal: the test guest boots, counts its incarnations, obeys the power button, keeps its ledger. Method: under plain
// QEMU, emulated.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "base/testing/temp_folder.hpp"
#include "lab/command.hpp"
#include "lab/files.hpp"
#include "lab/guest_image.hpp"
#include "lab/ledger_check.hpp"

namespace hf::lab {
namespace {

constexpr auto kGiveUp = std::chrono::seconds(120);

class Guest : public testing::Test {
 protected:
  void SetUp() override {
    if (!has_program("qemu-system-x86_64")) GTEST_SKIP() << "needs qemu-system-x86";
    if (::geteuid() != 0) GTEST_SKIP() << "keeps the image in /var/lib: needs root";
    auto image = guest_image("/var/lib/holdfast/lab/guest", [](const std::string&) {});
    if (!image) GTEST_SKIP() << image.error().what;
    image_ = *image;
    disk_ = folder_ + "/disk.raw";
    ASSERT_TRUE(run({"truncate", "-s", "8M", disk_}).ok());
  }
  void TearDown() override {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
  }

  void boot() {
    ::unlink(console().c_str());
    const auto started = start({"qemu-system-x86_64",
                                "-accel",
                                "tcg",
                                "-m",
                                "128",
                                "-nodefaults",
                                "-display",
                                "none",
                                "-serial",
                                "file:" + console(),
                                "-qmp",
                                "unix:" + folder_ + "/qmp,server=on,wait=off",
                                "-kernel",
                                image_.kernel,
                                "-initrd",
                                image_.initrd,
                                "-append",
                                image_.cmdline + " hf.ledger=1 hf.rate=100 hf.ip=10.0.2.15/24 hf.http=1",
                                "-drive",
                                "file=" + disk_ + ",format=raw,if=none,id=d,cache=none,file.locking=off",
                                "-device",
                                "virtio-blk-pci,drive=d",
                                "-netdev",
                                "user,id=n,restrict=on",
                                "-device",
                                "virtio-net-pci,netdev=n,romfile="},
                               Place{}, folder_ + "/qemu.log");
    ASSERT_TRUE(started.ok());
    pid_ = *started;
  }
  std::string console() { return folder_ + "/console"; }
  bool says(const std::string& text) {
    const auto end = std::chrono::steady_clock::now() + kGiveUp;
    while (std::chrono::steady_clock::now() < end) {
      const auto so_far = process::read_small_file(console(), 64 << 20);
      if (so_far && so_far->find(text) != std::string::npos) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return false;
  }
  void press_power() {
    const Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, (folder_ + "/qmp").c_str(), sizeof(address.sun_path) - 1);
    ASSERT_EQ(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    const std::string words = "{\"execute\":\"qmp_capabilities\"}{\"execute\":\"system_powerdown\"}";
    ASSERT_EQ(::write(socket.get(), words.data(), words.size()), static_cast<ssize_t>(words.size()));
    int status = 0;
    const auto end = std::chrono::steady_clock::now() + kGiveUp;
    pid_t ended = 0;
    while ((ended = ::waitpid(pid_, &status, WNOHANG)) == 0 && std::chrono::steady_clock::now() < end) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    ASSERT_EQ(ended, pid_) << "the guest did not power off";
    pid_ = 0;
    EXPECT_TRUE(WIFEXITED(status));
  }
  bool has_records_after(std::uint64_t sequence) {
    const auto end = std::chrono::steady_clock::now() + kGiveUp;
    while (std::chrono::steady_clock::now() < end) {
      const auto report = check_ledger(disk_);
      if (report && report->last_sequence > sequence + 5) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    return false;
  }

  GuestImage image_;
  test::TempFolder temp_;
  const std::string folder_ = temp_.path();
  std::string disk_;
  pid_t pid_ = 0;
};

TEST_F(Guest, counts_boots_keeps_its_ledger_and_obeys_the_power_button) {
  boot();
  ASSERT_TRUE(says("guest up incarnation=1"));
  ASSERT_TRUE(has_records_after(0));
  press_power();
  const auto first = check_ledger(disk_);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(first->problems, std::vector<std::string>{});
  boot();
  ASSERT_TRUE(says("guest up incarnation=2"));
  ASSERT_TRUE(has_records_after(first->last_sequence));
  ::kill(pid_, SIGKILL);  // a power cut
  ::waitpid(pid_, nullptr, 0);
  pid_ = 0;
  const auto second = check_ledger(disk_);
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(second->incarnation, 2u);
  EXPECT_EQ(second->problems, std::vector<std::string>{});
}

TEST_F(Guest, two_guests_on_one_disk_show) {
  boot();
  ASSERT_TRUE(says("guest up incarnation=1"));
  ASSERT_TRUE(has_records_after(0));
  const pid_t older = pid_;
  const std::string older_console = folder_ + "/older";
  // The open file follows its name.
  ASSERT_EQ(::rename(console().c_str(), older_console.c_str()), 0);
  ASSERT_EQ(::rename((folder_ + "/qmp").c_str(), (folder_ + "/qmp.older").c_str()), 0);
  boot();
  EXPECT_TRUE(says("guest up incarnation=2"));
  EXPECT_TRUE(says("STALE WRITE"));
  ::kill(older, SIGKILL);
  ::waitpid(older, nullptr, 0);
  const auto said = process::read_small_file(older_console);
  ASSERT_TRUE(said.ok());
  EXPECT_NE(said->find("DOUBLE RUN"), std::string::npos);
  press_power();
  const auto report = check_ledger(disk_);
  ASSERT_TRUE(report.ok());
  EXPECT_FALSE(report->problems.empty());
}

}  // namespace
}  // namespace hf::lab
