#pragma once
// Test parts for the shim: a hold page, and a child process that runs under the library. One thread.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "base/ensure.hpp"
#include "base/testing/temp_folder.hpp"

namespace hf::shim_test {

inline constexpr std::uint64_t kHeld = 0;
inline constexpr std::uint64_t kNever = UINT64_MAX;

using test::TempFolder;

class HoldPage {
 public:
  explicit HoldPage(std::string path) : path_(std::move(path)) {
    const int fd = open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    ENSURE(fd >= 0 && ftruncate(fd, 4096) == 0, "The hold page cannot be made.");
    void* mapped = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ENSURE(mapped != MAP_FAILED, "The hold page cannot be mapped.");
    close(fd);
    deadline_ = static_cast<std::uint64_t*>(mapped);
  }
  ~HoldPage() { munmap(deadline_, 4096); }
  HoldPage(const HoldPage&) = delete;
  HoldPage& operator=(const HoldPage&) = delete;
  void set(std::uint64_t deadline) { std::atomic_ref(*deadline_).store(deadline); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  std::uint64_t* deadline_ = nullptr;
};

// A child that runs `arguments` with `library` preloaded. Killed at the end.
class Child {
 public:
  Child(const std::string& library, const std::string& page, const std::vector<std::string>& arguments) {
    std::vector<char*> argv;
    for (const auto& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    pid_ = fork();
    if (pid_ != 0) return;
    if (!library.empty()) setenv("LD_PRELOAD", library.c_str(), 1);
    if (!page.empty()) setenv("HOLDFAST_HOLD_PAGE", page.c_str(), 1);
    execvp(argv[0], argv.data());
    _exit(127);
  }
  ~Child() {
    if (ended_) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  pid_t pid() const { return pid_; }
  int wait_for_end() {
    int status = 0;
    waitpid(pid_, &status, 0);
    ended_ = true;
    return status;
  }

 private:
  pid_t pid_ = -1;
  bool ended_ = false;
};

inline std::string slurp(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

// Waits for a condition; the bound is only there to end a test that has failed.
inline bool eventually(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

// The thread waits in the shim: it is inside clock_nanosleep of CLOCK_MONOTONIC (the C library asks for
// CLOCK_REALTIME).
inline bool naps(pid_t pid, pid_t thread) {
  return slurp("/proc/" + std::to_string(pid) + "/task/" + std::to_string(thread) + "/syscall")
      .starts_with("230 0x1 0x0 ");
}

inline std::vector<pid_t> threads_of(pid_t pid) {
  std::vector<pid_t> threads;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task")) {
    threads.push_back(std::stoi(entry.path().filename().string()));
  }
  return threads;
}

// Every thread has been seen to wait in the shim since the call.
inline bool all_come_to_nap(pid_t pid) {
  for (pid_t thread : threads_of(pid)) {
    if (!eventually([&] { return naps(pid, thread); })) return false;
  }
  return true;
}

}  // namespace hf::shim_test
