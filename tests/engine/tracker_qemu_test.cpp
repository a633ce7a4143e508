// Goal: a copy of a guest's memory that is kept by scans under stop never differs from the memory, whoever writes:
// vCPUs, QEMU's devices, disk reads straight into guest memory. Method: a stock QEMU in its sandbox as an unprivileged
// user, the lab's guest, a loop in it that reads its disk with O_DIRECT into a file in RAM; after each scan all of RAM
// is compared with the copy. A tracker that forgets some pages must be caught by the same comparison.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "base/rng.hpp"
#include "engine/attach.hpp"
#include "engine/compare_tracker.hpp"
#include "engine/pagemap_tracker.hpp"
#include "lab/guest_image.hpp"
#include "sys/qemu/qmp.hpp"
#include "sys/qemu/unix_socket.hpp"

namespace hf::engine {
namespace {
using Clock = std::chrono::steady_clock;
using nlohmann::json;
using process::UniqueFd;

constexpr auto kPatience = 120s;
constexpr uid_t kUser = 54321;
constexpr int kStops = 24;
constexpr std::uint64_t kReadBetweenStops = 4 << 20;

// The disk is filled with noise: what is read from it differs from what was there.
void write_noise(const std::string& path) {
  Rng rng(5);
  std::vector<std::uint64_t> noise((32 << 20) / 8);
  for (auto& word : noise) word = rng.below(UINT64_MAX);
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(noise.data()), 32 << 20);
}

const std::vector<std::string> kOneBlock = {
    "-m", "320", "-machine", "memory-backend=m0", "-object", "memory-backend-memfd,id=m0,size=320M,share=on"};
const std::vector<std::string> kTwoNodes = {"-m",      "384",
                                            "-object", "memory-backend-memfd,id=m0,size=256M,share=on",
                                            "-object", "memory-backend-memfd,id=m1,size=128M,share=on",
                                            "-numa",   "node,memdev=m0,cpus=0",
                                            "-numa",   "node,memdev=m1,cpus=1"};
// QEMU makes a file in the folder, and removes its name. One block, in two places of the guest's address space.
const std::vector<std::string> kAboveFourGib = {
    "-m",       "5120",
    "-machine", "memory-backend=m0",
    "-object",  "memory-backend-file,id=m0,size=5120M,mem-path=/dev/shm,share=on"};

class Guest : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root";
    const char* binary = std::getenv("HOLDFAST_QEMU");
    qemu_ = binary ? binary : "/usr/bin/qemu-system-x86_64";
    if (::access(qemu_.c_str(), X_OK) != 0) GTEST_SKIP() << "needs " << qemu_;
    auto image = lab::guest_image("/var/lib/holdfast/lab/guest", [](const std::string&) {});
    if (!image) GTEST_SKIP() << image.error().what;
    image_ = *image;
    folder_ = "/var/tmp/hf-tracker-XXXXXX";  // a file system with O_DIRECT
    ASSERT_NE(::mkdtemp(folder_.data()), nullptr);
    ASSERT_EQ(::chown(folder_.c_str(), kUser, kUser), 0);
    write_noise(folder_ + "/disk.raw");
    ASSERT_EQ(::chmod((folder_ + "/disk.raw").c_str(), 0644), 0);
  }

  void TearDown() override {
    tracker_.reset();
    monitor_.reset();
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
    std::error_code ignored;  // what is left is in a temporary folder
    if (!folder_.empty()) std::filesystem::remove_all(folder_, ignored);
  }

  std::vector<std::string> command_line(const std::vector<std::string>& memory) const {
    std::vector<std::string> line = {qemu_,      "-nodefaults", "-no-user-config", "-display", "none",
                                     "-machine", "q35"};
    const auto add = [&](std::initializer_list<std::string> words) { line.insert(line.end(), words); };
    add({"-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"});
    add({"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"});
    add({"-qmp", "unix:" + folder_ + "/qmp.sock,server=on,wait=off"});
    add({"-chardev",
         "socket,id=c,path=" + folder_ + "/console.sock,server=on,wait=off,logfile=" + console()});
    add({"-serial", "chardev:c", "-kernel", image_.kernel, "-initrd", image_.initrd});
    add({"-append", image_.cmdline + " hf.shell=1", "-device", "virtio-blk-pci,drive=d"});
    add({"-blockdev",
         "driver=file,node-name=d,read-only=on,locking=off,aio=threads,cache.direct=on,filename=" + folder_ +
             "/disk.raw"});
    line.insert(line.end(), memory.begin(), memory.end());
    return line;
  }

  void start(const std::vector<std::string>& memory) {
    std::vector<std::string> line = command_line(memory);
    line.insert(line.end(), {"-device", "virtio-rng-pci"});
    std::vector<char*> argv;
    for (auto& word : line) argv.push_back(word.data());
    argv.push_back(nullptr);
    pid_ = ::fork();
    ASSERT_GE(pid_, 0);
    if (pid_ == 0) {
      const int log = ::open((folder_ + "/qemu.log").c_str(), O_WRONLY | O_CREAT, 0644);
      ::dup2(log, 1);
      ::dup2(log, 2);
      ::setenv("LD_PRELOAD", HF_SHIM, 1);
      ::setenv("HOLDFAST_MEMORY_SOCKET", (folder_ + "/memory.sock").c_str(), 1);
      if (::setgid(kUser) == 0 && ::setuid(kUser) == 0) ::execv(argv[0], argv.data());
      ::_exit(127);
    }
    ASSERT_TRUE(eventually([&] {
      auto monitor = qemu::QmpClient::connect(folder_ + "/qmp.sock", [](const auto&, const auto&) {});
      if (monitor) monitor_ = std::move(*monitor);
      return monitor_ != nullptr || ::waitpid(pid_, nullptr, WNOHANG) != 0;
    }));
    ASSERT_NE(monitor_, nullptr) << read(folder_ + "/qemu.log");
  }

  std::string console() const { return folder_ + "/console.log"; }
  static std::string read(const std::string& path) {
    std::ifstream in(path);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  bool eventually(const std::function<bool()>& holds) {
    for (const auto end = Clock::now() + kPatience; Clock::now() < end;) {
      if (holds()) return true;
      std::this_thread::sleep_for(5ms);
    }
    return false;
  }

  // Boots, and starts the load: 8 MiB of RAM are written anew again and again with what is read from the disk.
  void load() {
    ASSERT_TRUE(eventually([&] { return read(console()).find("guest up") != std::string::npos; }))
        << read(console());
    auto console = qemu::connect_unix(folder_ + "/console.sock");
    ASSERT_TRUE(console.ok());
    console_ = std::move(*console);
    const std::string script =
        "i=0; while :; do i=$((i+1)); /busybox dd if=/dev/vda of=/x bs=256k count=32 skip=$((i%96)) "
        "iflag=direct "
        "conv=notrunc 2>/dev/null; done\n";
    ASSERT_TRUE(qemu::send_all(console_.get(), script, 10s).ok());
    ASSERT_NO_FATAL_FAILURE(let_it_read());
  }

  std::string execute(const std::string& command) {
    const auto answer = monitor_->execute(command, "", 60s);
    EXPECT_TRUE(answer.ok()) << command << ": " << answer.error().what;
    return answer ? *answer : "";
  }
  std::uint64_t bytes_read() {
    const json stats = json::parse(execute("query-blockstats"), nullptr, false);
    return stats.is_array() && !stats.empty() ? stats[0]["stats"]["rd_bytes"].get<std::uint64_t>() : 0;
  }
  void let_it_read() {
    const std::uint64_t before = bytes_read();
    ASSERT_TRUE(eventually([&] { return bytes_read() >= before + kReadBetweenStops; })) << read(console());
  }

  void attach(std::optional<Renewal> renewal) {
    auto answer = qemu::ask_shim(folder_ + "/memory.sock", 10s);
    ASSERT_TRUE(answer.ok()) << answer.error().what << read(folder_ + "/qemu.log");
    auto memory = map_guest_memory(*answer);
    ASSERT_TRUE(memory.ok()) << memory.error().what;
    memory_.emplace(std::move(*memory));
    if (!renewal) {
      tracker_ = std::make_unique<CompareTracker>(*memory_, "for the test");
      return;
    }
    if (!answer->why_not_tracked.empty()) GTEST_SKIP() << answer->why_not_tracked;
    auto tracker = PagemapTracker::open(memory_->blocks(), std::move(*answer), *renewal);
    ASSERT_TRUE(tracker.ok()) << tracker.error().what;
    tracker_ = std::move(*tracker);
  }

  void make_copy() {
    std::vector<GuestMemory::Part> parts;
    for (RamBlock block : memory_->blocks()) {
      UniqueFd file(::memfd_create("copy", MFD_CLOEXEC));
      ASSERT_EQ(::ftruncate(file.get(), static_cast<off_t>(block.bytes)), 0);
      parts.push_back({block, std::move(file)});
    }
    auto copy = GuestMemory::map(std::move(parts));
    ASSERT_TRUE(copy.ok());
    copy_.emplace(std::move(*copy));
    ASSERT_TRUE(tracker_->arm().ok());
    const auto present = memory_->present();
    ASSERT_TRUE(present.ok());
    copy_pages(*present);
  }
  void copy_pages(const PageSet& pages) {
    for (const PageRange& range : pages) {
      for (PageNumber page = range.first; page < range.first + range.count; ++page)
        std::memcpy(copy_->page(page), memory_->page(page), kPageBytes);
    }
  }
  std::uint64_t differing_pages() {
    std::uint64_t count = 0;
    for (const GuestMemory* memory : {&*memory_, &*copy_}) {
      const auto present = memory->present();
      EXPECT_TRUE(present.ok());
      if (!present) return UINT64_MAX;
      for (const PageRange& range : *present) {
        for (PageNumber page = range.first; page < range.first + range.count; ++page)
          count += std::memcmp(copy_->page(page), memory_->page(page), kPageBytes) != 0;
      }
    }
    return count;
  }

  // `passed_over(scan)` takes away from what a scan reported.
  std::uint64_t differing_after_stops(int stops, const std::function<void(PageSet&)>& passed_over) {
    std::uint64_t differing = 0, written_in_all = 0;
    execute("stop");
    make_copy();
    EXPECT_EQ(differing_pages(), 0U);
    execute("cont");
    for (int i = 0; i < stops && !HasFatalFailure(); ++i) {
      let_it_read();
      execute("stop");
      auto written = tracker_->take_written();
      EXPECT_TRUE(written.ok()) << (written ? "" : written.error().what);
      if (!written) break;
      // The least that the load must have written.
      EXPECT_GE(count_of(*written), 256U);
      written_in_all += count_of(*written);
      passed_over(*written);
      copy_pages(*written);
      differing += differing_pages();
      execute("cont");
    }
    std::printf("%d stops, %llu pages written, %llu MiB read from the disk, %llu pages differ\n", stops,
                static_cast<unsigned long long>(written_in_all),
                static_cast<unsigned long long>(bytes_read() >> 20),
                static_cast<unsigned long long>(differing));
    return differing;
  }

  void expect_no_difference(const std::vector<std::string>& memory, std::size_t blocks,
                            std::optional<Renewal> renewal, int stops = kStops) {
    ASSERT_NO_FATAL_FAILURE(start(memory));
    ASSERT_NO_FATAL_FAILURE(load());
    ASSERT_NO_FATAL_FAILURE(attach(renewal));
    if (IsSkipped()) return;
    EXPECT_EQ(memory_->blocks().size(), blocks);
    EXPECT_EQ(differing_after_stops(stops, [](PageSet&) {}), 0U);
  }

  std::string qemu_, folder_;
  lab::GuestImage image_;
  pid_t pid_ = 0;
  UniqueFd console_;
  std::unique_ptr<qemu::QmpClient> monitor_;
  std::optional<GuestMemory> memory_, copy_;
  std::unique_ptr<Tracker> tracker_;
};

TEST_F(Guest, no_page_differs_when_scanned_in_one_call) { expect_no_difference(kOneBlock, 1, Renewal::one); }

TEST_F(Guest, no_page_differs_with_two_numa_nodes_scanned_in_chunks) {
  expect_no_difference(kTwoNodes, 2, Renewal::chunks);
  ASSERT_TRUE(memory_.has_value());
  EXPECT_EQ(memory_->blocks()[0].bytes, 256U << 20);  // in the order of the command line
  EXPECT_EQ(memory_->blocks()[1].bytes, 128U << 20);
}

TEST_F(Guest, no_page_differs_with_memory_above_4_gib_in_a_tmpfs_file) {
  expect_no_difference(kAboveFourGib, 1, Renewal::one);
}

TEST_F(Guest, no_page_differs_by_comparison) { expect_no_difference(kOneBlock, 1, std::nullopt, 3); }

TEST_F(Guest, pages_that_a_tracker_passes_over_are_found_by_the_comparison) {
  ASSERT_NO_FATAL_FAILURE(start(kOneBlock));
  ASSERT_NO_FATAL_FAILURE(load());
  ASSERT_NO_FATAL_FAILURE(attach(Renewal::one));
  if (IsSkipped()) return;
  // As a tracker would that marks pages as not written and does not report them.
  EXPECT_GT(differing_after_stops(5, [](PageSet& pages) { pages.resize(pages.size() / 2); }), 0U);
}

}  // namespace
}  // namespace hf::engine
