#include "sys/process/host_facts.hpp"

#include <fcntl.h>
#include <sched.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <vector>

#include "sys/process/small_file.hpp"
#include "sys/process/unique_fd.hpp"

extern "C" char** environ;

namespace hf::process {
namespace {

Result<std::string> output_of(std::vector<std::string> command) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) < 0) return from_errno("Cannot make a pipe", errno);
  const UniqueFd reading(ends[0]);
  UniqueFd writing(ends[1]);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, writing.get(), 1);
  std::vector<char*> argv;
  for (auto& word : command) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_t child = 0;
  const int problem = ::posix_spawnp(&child, argv[0], &actions, nullptr, argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (problem != 0) return from_errno("Cannot run " + command[0], problem);
  writing.reset();
  std::string text;
  std::array<char, 4096> part;
  for (ssize_t count = 0; (count = ::read(reading.get(), part.data(), part.size())) > 0;) {
    if (text.size() < 64 * 1024) text.append(part.data(), static_cast<std::size_t>(count));
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  if (status != 0) return Error{Code::failed, command[0] + " did not run as it should."};
  return text;
}

}  // namespace

Result<std::uint64_t> parse_memory_mib(std::string_view meminfo, std::string_view label) {
  const auto at = meminfo.find(label);
  if (at == std::string_view::npos) return Error{Code::corrupt, "/proc/meminfo has no " + std::string(label)};
  meminfo.remove_prefix(std::min(meminfo.find_first_not_of(' ', at + label.size()), meminfo.size()));
  std::uint64_t kib = 0;
  if (std::from_chars(meminfo.data(), meminfo.data() + meminfo.size(), kib).ec != std::errc{}) {
    return Error{Code::corrupt, std::string(label) + " in /proc/meminfo is not a number."};
  }
  return kib / 1024;
}

Result<HostFacts> host_facts() {
  HostFacts facts;
  TRY_ASSIGN(const std::string meminfo, read_small_file("/proc/meminfo"));
  TRY_ASSIGN(facts.memory_mib, parse_memory_mib(meminfo, "MemTotal:"));
  facts.cpus = static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN));
  cpu_set_t allowed;
  if (::sched_getaffinity(0, sizeof allowed, &allowed) == 0) facts.cpus = CPU_COUNT(&allowed);
  return facts;
}

Result<std::string> parse_qemu_version(std::string_view text) {
  constexpr std::string_view kLabel = "QEMU emulator version ";
  if (!text.starts_with(kLabel))
    return Error{Code::unsupported, "This program is not a QEMU system emulator."};
  text.remove_prefix(kLabel.size());
  return std::string(text.substr(0, text.find_first_not_of("0123456789.")));
}

Result<std::string> qemu_version(const std::string& binary) {
  auto text = output_of({binary, "--version"});
  if (!text) return because("Cannot learn QEMU's version (is qemu-system-x86 installed?)", text.error());
  return parse_qemu_version(*text);
}

Status require_root() {
  if (::geteuid() == 0) return {};
  return Error{Code::denied,
               "Holdfast's host daemon must run as root: it makes cgroups, network devices and VMs."};
}

}  // namespace hf::process
