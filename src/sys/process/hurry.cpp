#include "sys/process/hurry.hpp"

#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <charconv>
#include <cstdint>
#include <filesystem>
#include <string>
#include <system_error>

#include "sys/process/unique_fd.hpp"

namespace hf::process {
namespace {
constexpr int kHurried = -20;

// struct sched_attr, first version: the C library has it only of late, the kernel's header clashes with the library's.
struct Attributes {
  std::uint32_t size = sizeof(Attributes);
  std::uint32_t policy = SCHED_OTHER;
  std::uint64_t flags = 0;
  std::int32_t nice = 0;
  std::uint32_t priority = 0;
  std::uint64_t runtime = 0, deadline = 0, period = 0;
};
static_assert(sizeof(Attributes) == 48);

void set_all(int pid, const Attributes& attributes) {
  const std::string folder = "/proc/" + std::to_string(pid);
  // Where the kernel makes a scheduling group of each session, a thread's own value counts only within it.
  if (const UniqueFd group(::open((folder + "/autogroup").c_str(), O_WRONLY | O_CLOEXEC)); group) {
    const std::string text = std::to_string(attributes.nice);
    [[maybe_unused]] const auto written = ::write(group.get(), text.data(), text.size());
  }
  std::error_code gone;
  for (std::filesystem::directory_iterator at(folder + "/task", gone), end; !gone && at != end;
       at.increment(gone)) {
    const std::string name = at->path().filename();
    int thread = 0;
    std::from_chars(name.data(), name.data() + name.size(), thread);
    if (thread > 0) ::syscall(SYS_sched_setattr, thread, &attributes, 0);
  }
}

}  // namespace

void hurry(int pid) { set_all(pid, {.flags = SCHED_FLAG_RESET_ON_FORK, .nice = kHurried}); }

void end_hurry(int pid, int nice) { set_all(pid, {.nice = nice}); }

}  // namespace hf::process
