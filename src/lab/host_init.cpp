#include "lab/host_init.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <vector>

#include "base/log.hpp"
#include "lab/cgroup.hpp"
#include "lab/files.hpp"
#include "lab/services.hpp"
#include "sys/process/own_nice.hpp"

namespace hf::lab {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// A service that dies young again and again waits twice as long each time.
constexpr auto kFirstPause = milliseconds(100);
constexpr auto kLongestPause = milliseconds(5000);
constexpr auto kYoung = std::chrono::seconds(5);
constexpr int kQuickDeaths = 3;  // before the pause grows

struct Running {
  Service service;
  std::string cgroup;
  std::string log;
  pid_t pid = 0;  // 0: waits for start_at
  Clock::time_point started;
  Clock::time_point start_at;
  int quick_deaths = 0;
};

[[noreturn]] void become(const Running& one) {
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::setsid();
  const int log_fd = ::open(one.log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  ::dup2(log_fd, 1);
  ::dup2(log_fd, 2);
  if (auto joined = process::write_control_file(one.cgroup + "/cgroup.procs", "0"); !joined) {
    log(Level::error, "service not started", {{"why", joined.error().what}});
    ::_exit(126);
  }
  process::set_own_nice(one.service.nice);
  for (const auto& [key, value] : one.service.environment) ::setenv(key.c_str(), value.c_str(), 1);
  std::vector<char*> argv;
  for (const auto& word : one.service.argv) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  ::execvp(argv[0], argv.data());
  log(Level::error, "service not started",
      {{"why", from_errno("Cannot start " + one.service.argv[0], errno).what}});
  ::_exit(126);
}

void start_one(Running& one) {
  const pid_t pid = ::fork();
  if (pid == 0) become(one);
  one.started = Clock::now();
  if (pid < 0) {
    one.start_at = one.started + kLongestPause;
    return;
  }
  one.pid = pid;
  log(Level::info, "service started", {{"service", one.service.name}, {"pid", std::to_string(pid)}});
}

void note_death(Running& one, int status) {
  const auto now = Clock::now();
  one.quick_deaths = now - one.started < kYoung ? one.quick_deaths + 1 : 0;
  const int doublings = std::clamp(one.quick_deaths - kQuickDeaths, 0, 6);
  const auto pause = std::min<Clock::duration>(kFirstPause * (1 << doublings), kLongestPause);
  one.start_at = now + pause;
  one.pid = 0;
  log(Level::warn, "service ended",
      {{"service", one.service.name},
       {"how", WIFSIGNALED(status) ? "signal " + std::to_string(WTERMSIG(status))
                                   : "exit status " + std::to_string(WEXITSTATUS(status))}});
}

void reap(std::vector<Running>& all) {
  int status = 0;
  for (pid_t pid = 0; (pid = ::waitpid(-1, &status, WNOHANG)) > 0;) {
    for (auto& one : all) {
      if (one.pid == pid) note_death(one, status);
    }
  }
}

// How long until something is to be started; starts what is due.
Clock::duration start_due(std::vector<Running>& all) {
  Clock::duration pause = std::chrono::seconds(60);
  for (auto& one : all) {
    if (one.pid == 0 && one.start_at <= Clock::now()) start_one(one);
    if (one.pid == 0) pause = std::min(pause, one.start_at - Clock::now());
  }
  return std::max<Clock::duration>(pause, milliseconds(1));
}

}  // namespace

Status run_host_init(const Layout& layout, const std::string& host) {
  TRY_ASSIGN(std::string text, process::read_small_file(layout.host_dir(host) + "/etc/services.json"));
  TRY_ASSIGN(std::vector<Service> services, services_from_json(text));
  std::vector<Running> all;
  for (auto& service : services) {
    Running one;
    one.cgroup = layout.services_cgroup(host) + "/" + service.name;
    one.log = layout.log_file(host, service.name);
    one.service = std::move(service);
    TRY(cgroup::make(one.cgroup));
    all.push_back(std::move(one));
  }
  sigset_t deaths;
  sigemptyset(&deaths);
  sigaddset(&deaths, SIGCHLD);
  ::sigprocmask(SIG_BLOCK, &deaths, nullptr);
  for (;;) {
    const auto pause = std::chrono::duration_cast<std::chrono::nanoseconds>(start_due(all)).count();
    const timespec limit{.tv_sec = static_cast<time_t>(pause / 1'000'000'000),
                         .tv_nsec = static_cast<long>(pause % 1'000'000'000)};
    ::sigtimedwait(&deaths, nullptr, &limit);
    reap(all);
  }
}

}  // namespace hf::lab
