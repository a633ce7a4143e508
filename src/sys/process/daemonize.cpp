#include "sys/process/daemonize.hpp"

#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "sys/process/identity.hpp"
#include "sys/process/own_nice.hpp"

namespace hf::process {
namespace {

enum class Stage : int { ready, cgroup, files, priority, user, exec };
constexpr std::array kStageNames = {"becoming ready", "entering its cgroup", "its files", "its priority",
                                    "its user",       "starting it"};

// What the new process says to us over the channel.
struct Message {
  Stage stage;
  int error_number;
  int pid;
};

// Everything the child needs, made before the fork: between fork and exec only system calls are safe.
struct Prepared {
  std::string program;
  std::vector<char*> argv, environment;
  std::string oom_score_adj;
  UniqueFd null, output, cgroup_procs, ours, theirs;
};

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> all;
  for (const auto& text : texts) all.push_back(const_cast<char*>(text.c_str()));  // execve takes them so
  all.push_back(nullptr);
  return all;
}

Result<std::string> find_program(const std::string& name) {
  if (name.find('/') != std::string::npos) return name;
  for (const char* folder : {"/usr/local/bin/", "/usr/bin/", "/bin/", "/usr/sbin/", "/sbin/"}) {
    if (::access((folder + name).c_str(), X_OK) == 0) return folder + name;
  }
  return Error{Code::not_found, "The program " + name + " is not installed."};
}

Result<Prepared> prepare(const DetachRequest& request) {
  Prepared made;
  TRY_ASSIGN(made.program, find_program(request.argv.at(0)));
  made.argv = pointers(request.argv);
  made.environment = pointers(request.environment);
  made.oom_score_adj = std::to_string(request.oom_score_adj);
  made.null.reset(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!made.null) return from_errno("Cannot open /dev/null", errno);
  const char* output = request.output_path.c_str();
  made.output.reset(::open(output, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640));
  if (!made.output) return from_errno("Cannot create " + request.output_path, errno);
  if (!request.cgroup.empty()) {
    made.cgroup_procs.reset(::open((request.cgroup + "/cgroup.procs").c_str(), O_WRONLY | O_CLOEXEC));
    if (!made.cgroup_procs) return from_errno("Cannot open the cgroup " + request.cgroup, errno);
  }
  int channel[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel) < 0) {
    return from_errno("Cannot make a socket pair", errno);
  }
  made.ours.reset(channel[0]);
  made.theirs.reset(channel[1]);
  return made;
}

[[noreturn]] void give_up(int channel, Stage stage) {
  const Message message{stage, errno, 0};
  [[maybe_unused]] const ssize_t sent = ::send(channel, &message, sizeof message, MSG_NOSIGNAL);
  ::_exit(127);
}

void reset_signals() {
  struct sigaction standard{};
  standard.sa_handler = SIG_DFL;
  for (int number = 1; number < NSIG; ++number) ::sigaction(number, &standard, nullptr);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

bool keep_only(const DetachRequest& request) {
  if (::syscall(SYS_close_range, 3U, ~0U, static_cast<unsigned>(CLOSE_RANGE_CLOEXEC)) < 0) return false;
  for (const int fd : request.inherited_fds) {
    if (::fcntl(fd, F_SETFD, 0) < 0) return false;
  }
  return true;
}

bool set_priority(const DetachRequest& request, const Prepared& made) {
  const int oom = ::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (oom < 0) return false;
  const bool written = ::write(oom, made.oom_score_adj.data(), made.oom_score_adj.size()) > 0;
  ::close(oom);
  // The starter may run at real-time priority; the program must not.
  sched_param ordinary{};
  if (::sched_setscheduler(0, SCHED_OTHER, &ordinary) < 0) return false;
  return written && set_own_nice(request.nice);
}

// The system calls themselves: glibc's functions of the same names want to tell all threads, which a fork
// does not have.
bool become(const Credentials& user) {
  if (::syscall(SYS_setgroups, user.groups.size(), user.groups.data()) < 0) return false;
  if (::syscall(SYS_setresgid, user.gid, user.gid, user.gid) < 0) return false;
  return ::syscall(SYS_setresuid, user.uid, user.uid, user.uid) >= 0;
}

// In the grandchild.
[[noreturn]] void run(const DetachRequest& request, const Prepared& made) {
  const int channel = made.theirs.get();
  ::close(made.ours.get());  // so that our death ends the channel
  if (made.cgroup_procs && ::write(made.cgroup_procs.get(), "0", 1) != 1) give_up(channel, Stage::cgroup);
  reset_signals();
  ::umask(0027);
  if (::dup2(made.null.get(), 0) < 0 || ::dup2(made.output.get(), 1) < 0 ||
      ::dup2(made.output.get(), 2) < 0 || ::chdir("/") < 0 || !keep_only(request)) {
    give_up(channel, Stage::files);
  }
  if (!set_priority(request, made)) give_up(channel, Stage::priority);
  if (request.credentials && !become(*request.credentials)) give_up(channel, Stage::user);
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) give_up(channel, Stage::user);
  const Message ready{Stage::ready, 0, ::getpid()};
  char go = 0;
  // safety: no QEMU without its record: the program starts only after the caller has written down who it is.
  if (::send(channel, &ready, sizeof ready, MSG_NOSIGNAL) != sizeof ready) ::_exit(127);
  if (::recv(channel, &go, 1, 0) != 1) ::_exit(127);
  ::execve(made.program.c_str(), made.argv.data(), made.environment.data());
  give_up(channel, Stage::exec);
}

// Nothing: the channel was closed.
Result<std::optional<Message>> receive(const Prepared& made) {
  Message message{};
  ssize_t count = 0;
  do {
    count = ::recv(made.ours.get(), &message, sizeof message, MSG_WAITALL);
  } while (count < 0 && errno == EINTR);
  if (count == 0) return std::optional<Message>{};
  if (count != sizeof message) return Error{Code::failed, "The new process broke off."};
  return std::optional(message);
}

Error failure(const Prepared& made, const Message& message) {
  const char* stage = kStageNames.at(static_cast<std::size_t>(message.stage));
  return from_errno("Cannot start " + made.program + " (" + stage + ")", message.error_number);
}

Status fork_twice(const DetachRequest& request, Prepared& made) {
  const pid_t child = ::fork();
  if (child < 0) return from_errno("Cannot start a process", errno);
  if (child == 0) {
    ::setsid();
    const pid_t grandchild = ::fork();
    if (grandchild == 0) run(request, made);
    ::_exit(grandchild < 0 ? 1 : 0);
  }
  made.theirs.reset();
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  return {};
}

}  // namespace

Result<DetachedProcess> spawn_detached(const DetachRequest& request) {
  TRY_ASSIGN(Prepared made, prepare(request));
  TRY(fork_twice(request, made));
  TRY_ASSIGN(const auto first, receive(made));
  if (!first) return Error{Code::failed, "The new process ended before it began."};
  if (first->stage != Stage::ready) return failure(made, *first);

  DetachedProcess process;
  process.pid = first->pid;
  TRY_ASSIGN(process.start_time, start_time_of(process.pid));
  TRY_ASSIGN(process.pidfd, open_process(process.pid, process.start_time));
  if (request.before_exec) TRY(request.before_exec(process));
  const char go = 1;
  if (::send(made.ours.get(), &go, 1, MSG_NOSIGNAL) != 1)
    return Error{Code::failed, "The new process broke off."};
  TRY_ASSIGN(const auto last, receive(made));
  if (last) return failure(made, *last);
  return process;
}

}  // namespace hf::process
