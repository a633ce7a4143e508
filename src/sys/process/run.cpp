#include "sys/process/run.hpp"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <utility>

#include "base/ensure.hpp"

namespace hf::process {
namespace {

constexpr Duration kReapTime =
    5s;  // a killed process that hangs in the kernel longer than this is left behind

class Fd {
 public:
  explicit Fd(int number = -1) : number_(number) {}
  Fd(Fd&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~Fd() { close(); }
  void close() {
    if (number_ >= 0) ::close(std::exchange(number_, -1));
  }
  int number() const { return number_; }

 private:
  int number_;
};

struct Pipe {
  Fd read, write;
};

Result<Pipe> make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return from_errno("Cannot make a pipe", errno);
  Pipe pipe{Fd(ends[0]), Fd(ends[1])};
  if (::fcntl(ends[0], F_SETFL, O_NONBLOCK) != 0) return from_errno("Cannot set up a pipe", errno);
  return pipe;
}

// What a program shall read, and then the end; none: -1.
Result<Fd> input_pipe(const std::string& input) {
  if (input.empty()) return Fd();
  ENSURE(input.size() <= kInputMax, "the input of a tool fits a pipe");
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return from_errno("Cannot make a pipe", errno);
  Fd read(ends[0]);
  const Fd write(ends[1]);
  const auto size = static_cast<ssize_t>(input.size());
  if (::write(write.number(), input.data(), input.size()) != size) return from_errno("Cannot write to a pipe", errno);
  return read;
}

// posix_spawn's two argument objects, with their lifetimes.
class SpawnSetup {
 public:
  // in: -1: nothing to read.
  SpawnSetup(int in, int out, int err) {
    posix_spawn_file_actions_init(&actions_);
    if (in < 0) posix_spawn_file_actions_addopen(&actions_, 0, "/dev/null", O_RDONLY, 0);
    else posix_spawn_file_actions_adddup2(&actions_, in, 0);
    posix_spawn_file_actions_adddup2(&actions_, out, 1);
    posix_spawn_file_actions_adddup2(&actions_, err, 2);
    posix_spawn_file_actions_addclosefrom_np(&actions_, 3);
    posix_spawnattr_init(&attributes_);
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes_, &none);
    posix_spawnattr_setsigdefault(&attributes_, &all);
    posix_spawnattr_setpgroup(&attributes_, 0);
    posix_spawnattr_setflags(&attributes_,
                             POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  }
  SpawnSetup(const SpawnSetup&) = delete;
  SpawnSetup& operator=(const SpawnSetup&) = delete;
  ~SpawnSetup() {
    posix_spawn_file_actions_destroy(&actions_);
    posix_spawnattr_destroy(&attributes_);
  }
  Result<pid_t> spawn(const std::vector<std::string>& argv) {
    std::vector<char*> arguments;
    for (const std::string& argument : argv) arguments.push_back(const_cast<char*>(argument.c_str()));
    arguments.push_back(nullptr);
    char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", locale[] = "LC_ALL=C";
    char* environment[] = {path, locale, nullptr};
    pid_t pid = 0;
    int problem =
        ::posix_spawnp(&pid, argv[0].c_str(), &actions_, &attributes_, arguments.data(), environment);
    if (problem != 0) return from_errno("Cannot run " + argv[0], problem);
    return pid;
  }

 private:
  posix_spawn_file_actions_t actions_{};
  posix_spawnattr_t attributes_{};
};

// A started program: reads what it says until it ends, is stopped or its time is over.
class Run {
 public:
  Run(pid_t pid, Fd pidfd, Fd out, Fd err, const RunOptions& options)
      : pid_(pid), pidfd_(std::move(pidfd)), out_(std::move(out)), err_(std::move(err)), options_(options) {}

  Result<RunOutput> finish(const std::string& name) {
    Fd stopped(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    std::stop_callback on_stop(
        options_.stop, [&] { (void)::eventfd_write(stopped.number(), 1); });  // only EAGAIN: it is set
    const Status ended = wait(stopped.number(), name);
    if (!ended.ok()) {
      // The group is the program's own: nobody else is in it.
      ::kill(-pid_, SIGKILL);
      pollfd gone{pidfd_.number(), POLLIN, 0};
      const int wait_ms =
          static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(kReapTime).count());
      if (::poll(&gone, 1, wait_ms) > 0) (void)reap();  // how a killed program ended does not matter
      return ended.error();
    }
    // Once more: what it wrote just before its end. A child it left behind may keep the pipes open: not
    // waited for.
    drain(out_, output_.out, true);
    drain(err_, output_.err, false);
    TRY(reap());
    return std::move(output_);
  }

 private:
  static Instant now() { return Instant(std::chrono::steady_clock::now().time_since_epoch()); }

  Status wait(int stop_fd, const std::string& name) {
    const Instant end = now() + options_.timeout;
    while (true) {
      int wait_ms = -1;
      if (options_.timeout.count() > 0) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - now()).count();
        if (left <= 0) return Error{Code::timed_out, name + " did not end in time and was ended."};
        wait_ms = static_cast<int>(std::min<std::int64_t>(left, 1 << 30));
      }
      std::array<pollfd, 4> watched = {pollfd{pidfd_.number(), POLLIN, 0}, pollfd{stop_fd, POLLIN, 0},
                                       pollfd{out_.number(), POLLIN, 0}, pollfd{err_.number(), POLLIN, 0}};
      if (::poll(watched.data(), watched.size(), wait_ms) < 0 && errno != EINTR) {
        return from_errno("Cannot wait for " + name, errno);
      }
      if ((watched[1].revents & POLLIN) != 0) return Error{Code::failed, name + " was stopped on request."};
      drain(out_, output_.out, true);
      drain(err_, output_.err, false);
      if ((watched[0].revents & POLLIN) != 0) return {};
    }
  }

  void drain(Fd& fd, std::string& kept, bool is_output) {
    std::array<char, 16384> piece;
    // Bounded, so that a program that never stops writing cannot keep us from its time limit.
    for (int i = 0; i < 64 && fd.number() >= 0; ++i) {
      const ssize_t got = ::read(fd.number(), piece.data(), piece.size());
      if (got < 0 && errno == EINTR) continue;
      if (got < 0 && errno == EAGAIN) return;
      if (got <= 0) return fd.close();
      const auto size = static_cast<std::size_t>(got);
      if (is_output && options_.on_output) options_.on_output(std::string_view(piece.data(), size));
      kept.append(piece.data(), std::min(size, options_.output_bytes_max -
                                                   std::min(options_.output_bytes_max, kept.size())));
    }
  }

  Status reap() {
    int status = 0;
    pid_t got = 0;
    do got = ::waitpid(pid_, &status, 0);
    while (got < 0 && errno == EINTR);
    if (got < 0) return from_errno("Cannot learn how a program ended", errno);
    output_.exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return {};
  }

  pid_t pid_;
  Fd pidfd_, out_, err_;
  const RunOptions& options_;
  RunOutput output_;
};

}  // namespace

std::string RunOutput::complaint() const {
  std::string text = err.empty() ? out : err;
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  if (auto line = text.find_last_of("\n\r"); line != std::string::npos) text.erase(0, line + 1);
  return text.empty() ? "exit status " + std::to_string(exit_status) : text;
}

Result<RunOutput> run_tool(const std::vector<std::string>& argv, const RunOptions& options) {
  ENSURE(!argv.empty(), "a program to run has a name");
  if (options.stop.stop_requested()) return Error{Code::failed, argv[0] + " was stopped on request."};
  TRY_ASSIGN(Pipe out, make_pipe());
  TRY_ASSIGN(Pipe err, make_pipe());
  TRY_ASSIGN(const Fd in, input_pipe(options.input));
  TRY_ASSIGN(const pid_t pid, SpawnSetup(in.number(), out.write.number(), err.write.number()).spawn(argv));
  out.write.close();
  err.write.close();
  Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (pidfd.number() < 0) {
    const Error problem = from_errno("Cannot watch " + argv[0], errno);
    ::kill(-pid, SIGKILL);
    (void)::waitpid(pid, nullptr, 0);  // killed; the error is already known
    return problem;
  }
  return Run(pid, std::move(pidfd), std::move(out.read), std::move(err.read), options).finish(argv[0]);
}

}  // namespace hf::process
