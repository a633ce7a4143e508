// Goal: after the deadline not one byte of a disk changes, wherever a thread was when it was stopped; before
// it, all passes. Method: a real writer process under the real library. The window between the look at the
// clock and the system call is entered with a breakpoint on the `syscall` instruction; the library built
// without the critical section must fail there.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <sys/ptrace.h>
#include <sys/user.h>

#include <cerrno>

#include "base/rng.hpp"
#include "shim/testing/harness.hpp"

namespace hf::shim_test {
namespace {

const std::string kShim = HF_SHIM;
const std::string kNaiveShim = HF_SHIM_NAIVE;
const std::string kWriter = HF_SHIM_WRITER;

std::uint64_t address_in(pid_t pid, const std::string& library) {
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  ENSURE(handle != nullptr, "The library cannot be loaded.");
  void* symbol = dlsym(handle, "holdfast_shim_syscall");
  Dl_info info{};
  ENSURE(symbol != nullptr && dladdr(symbol, &info) != 0, "The library has no holdfast_shim_syscall.");
  const auto offset =
      reinterpret_cast<std::uint64_t>(symbol) - reinterpret_cast<std::uint64_t>(info.dli_fbase);
  std::ifstream maps("/proc/" + std::to_string(pid) + "/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find(library) != std::string::npos) return std::stoull(line, nullptr, 16) + offset;
  }
  ENSURE(false, "The child has not mapped the library.");
  return 0;
}

struct Registers : user_regs_struct {};

Registers registers_of(pid_t pid) {
  Registers registers{};
  ENSURE(ptrace(PTRACE_GETREGS, pid, nullptr, static_cast<user_regs_struct*>(&registers)) == 0, "getregs");
  return registers;
}

// A writer of one block, traced, stopped with its next instruction the `syscall` that writes; the deadline
// has not passed.
class AtTheWindow {
 public:
  explicit AtTheWindow(const std::string& library)
      : page(folder / "hold"),
        disk(elsewhere / "disk"),
        child(library, page.path(), {kWriter, disk, "once"}) {
    const pid_t pid = child.pid();
    EXPECT_TRUE(eventually([&] { return naps(pid, pid); }));
    EXPECT_EQ(ptrace(PTRACE_SEIZE, pid, nullptr, nullptr), 0);
    EXPECT_EQ(ptrace(PTRACE_INTERRUPT, pid, nullptr, nullptr), 0);
    waitpid(pid, nullptr, 0);
    const std::uint64_t address = address_in(pid, library);
    errno = 0;
    const long code = ptrace(PTRACE_PEEKTEXT, pid, address, nullptr);
    EXPECT_EQ(errno, 0);
    EXPECT_EQ(ptrace(PTRACE_POKETEXT, pid, address, (code & ~0xffL) | 0xcc), 0);
    page.set(kNever);
    EXPECT_EQ(ptrace(PTRACE_CONT, pid, nullptr, nullptr), 0);
    int status = 0;
    waitpid(pid, &status, 0);
    EXPECT_TRUE(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
    Registers registers = registers_of(pid);
    EXPECT_EQ(registers.rip, address + 1);
    registers.rip = address;
    EXPECT_EQ(ptrace(PTRACE_POKETEXT, pid, address, code), 0);
    EXPECT_EQ(ptrace(PTRACE_SETREGS, pid, nullptr, static_cast<user_regs_struct*>(&registers)), 0);
    window = address;
  }
  bool written() const { return slurp(disk).size() == 8; }

  TempFolder folder;
  TempFolder elsewhere;  // what is in the page's own folder is no disk
  HoldPage page;
  std::string disk;
  Child child;
  std::uint64_t window = 0;
};

TEST(ShimWindow, a_write_whose_deadline_passes_right_before_the_system_call_is_not_made) {
  AtTheWindow stopped(kShim);
  const pid_t pid = stopped.child.pid();
  stopped.page.set(kHeld);
  ASSERT_EQ(ptrace(PTRACE_DETACH, pid, nullptr, nullptr), 0);
  ASSERT_TRUE(eventually([&] { return naps(pid, pid); }));
  EXPECT_FALSE(stopped.written());
  stopped.page.set(kNever);
  EXPECT_EQ(stopped.child.wait_for_end(), 0);
  EXPECT_TRUE(stopped.written());
}

TEST(ShimWindow, the_same_write_without_the_critical_section_is_made_too_late) {
  AtTheWindow stopped(kNaiveShim);
  stopped.page.set(kHeld);
  ASSERT_EQ(ptrace(PTRACE_DETACH, stopped.child.pid(), nullptr, nullptr), 0);
  EXPECT_EQ(stopped.child.wait_for_end(), 0);
  EXPECT_TRUE(stopped.written()) << "the window this suite aims at is gone: the other tests prove nothing";
}

TEST(ShimWindow, a_single_step_from_the_system_call_leaves_it_and_the_write_is_made_once_later) {
  AtTheWindow stopped(kShim);
  const pid_t pid = stopped.child.pid();
  ASSERT_EQ(ptrace(PTRACE_SINGLESTEP, pid, nullptr, nullptr), 0);
  waitpid(pid, nullptr, 0);
  const std::uint64_t next = registers_of(pid).rip;
  EXPECT_NE(next, stopped.window + 2) << "the system call was made";
  EXPECT_FALSE(stopped.written());
  ASSERT_EQ(ptrace(PTRACE_DETACH, pid, nullptr, nullptr), 0);
  EXPECT_EQ(stopped.child.wait_for_end(), 0);
  EXPECT_TRUE(stopped.written());
}

TEST(Shim, eight_threads_stopped_at_300_random_moments_change_nothing_after_the_deadline) {
  TempFolder folder;
  TempFolder elsewhere;
  HoldPage page(folder / "hold");
  const std::string disk = elsewhere / "disk";
  Child writer(kShim, page.path(), {kWriter, disk, "8"});
  const pid_t pid = writer.pid();
  ASSERT_TRUE(eventually([&] { return threads_of(pid).size() == 8; }));
  Rng rng(1);
  for (int round = 0; round < 300; ++round) {
    const std::string before = slurp(disk);
    page.set(kNever);
    ASSERT_TRUE(eventually([&] { return slurp(disk) != before; })) << "the writer does not go on";
    std::this_thread::sleep_for(std::chrono::microseconds(rng.below(2000)));  // the random moment
    ASSERT_EQ(kill(pid, SIGSTOP), 0);
    int status = 0;
    ASSERT_EQ(waitpid(pid, &status, WUNTRACED), pid);
    ASSERT_TRUE(WIFSTOPPED(status));
    page.set(kHeld);
    const std::string stopped = slurp(disk);
    ASSERT_EQ(kill(pid, SIGCONT), 0);
    ASSERT_TRUE(all_come_to_nap(pid));
    ASSERT_EQ(slurp(disk), stopped) << "a stale write in round " << round;
  }
}

TEST(Shim, writes_pass_before_the_deadline_and_wait_after_it) {
  TempFolder folder;
  TempFolder elsewhere;
  HoldPage page(folder / "hold");
  timespec now{};
  clock_gettime(CLOCK_BOOTTIME, &now);
  page.set(static_cast<std::uint64_t>(now.tv_sec + 3600) * 1'000'000'000ULL);
  Child first(kShim, page.path(), {kWriter, elsewhere / "disk", "once"});
  EXPECT_EQ(first.wait_for_end(), 0);
  page.set(static_cast<std::uint64_t>(now.tv_sec - 1) * 1'000'000'000ULL);
  Child second(kShim, page.path(), {kWriter, elsewhere / "disk2", "once"});
  EXPECT_TRUE(eventually([&] { return naps(second.pid(), second.pid()); }));
  EXPECT_EQ(slurp(elsewhere / "disk2"), "");
}

TEST(Shim, without_a_page_everything_passes) {
  TempFolder elsewhere;
  Child writer(kShim, "", {kWriter, elsewhere / "disk", "once"});
  EXPECT_EQ(writer.wait_for_end(), 0);
  EXPECT_EQ(slurp(elsewhere / "disk").size(), 8U);
}

TEST(Shim, with_a_page_that_cannot_be_mapped_the_process_does_not_start) {
  TempFolder folder;
  std::ofstream(folder / "short") << "1234";
  for (const std::string& page : {folder / "missing", folder / "short"}) {
    Child writer(kShim, page, {kWriter, folder / "disk", "once"});
    const int status = writer.wait_for_end();
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 126) << page;
    EXPECT_FALSE(std::filesystem::exists(folder / "disk"));
  }
}

TEST(Shim, its_own_variables_do_not_reach_children) {
  TempFolder folder;
  HoldPage page(folder / "hold");
  const std::string out =
      folder / "out";  // in the run directory: not a disk, so the held page does not matter
  Child shell(kShim, page.path(), {"sh", "-c", "env >" + out});
  EXPECT_EQ(shell.wait_for_end(), 0);
  EXPECT_EQ(slurp(out).find("LD_PRELOAD"), std::string::npos);
  EXPECT_EQ(slurp(out).find("HOLDFAST_HOLD_PAGE"), std::string::npos);
}

}  // namespace
}  // namespace hf::shim_test
