#include "lab/command.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <sstream>

#include "lab/files.hpp"

namespace hf::lab {
namespace {

constexpr int kNotStarted = 126;

[[noreturn]] void exec_or_die(const std::vector<std::string>& argv) {
  std::vector<char*> pointers;
  for (const auto& word : argv) pointers.push_back(const_cast<char*>(word.c_str()));
  pointers.push_back(nullptr);
  ::execvp(pointers[0], pointers.data());
  const std::string text = from_errno("Cannot start " + argv[0], errno).what + "\n";
  [[maybe_unused]] auto written = ::write(STDERR_FILENO, text.data(), text.size());
  ::_exit(kNotStarted);
}

[[noreturn]] void die(const Error& error) {
  const std::string text = error.what + "\n";
  [[maybe_unused]] auto written = ::write(STDERR_FILENO, text.data(), text.size());
  ::_exit(kNotStarted);
}

Status join_namespace(const std::string& path, int kind) {
  if (path.empty()) return {};
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file || ::setns(file.get(), kind) != 0) return from_errno("Cannot enter the namespace " + path, errno);
  return {};
}

std::string last_line(const std::string& text) {
  std::istringstream lines(text);
  std::string last;
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty()) last = line;
  }
  return last;
}

int exit_status(pid_t pid) {
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

struct Pipe {
  Fd reader, writer;
};

Result<Pipe> make_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return from_errno("Cannot make a pipe", errno);
  return Pipe{.reader = Fd(ends[0]), .writer = Fd(ends[1])};
}

// Feeds and drains the three pipes of a child until it has closed both outputs.
void exchange(Pipe& in, const std::string& input, Pipe& out, std::string& output, Pipe& err,
              std::string& errors) {
  std::size_t sent = 0;
  if (input.empty()) in.writer.reset(-1);
  std::array<char, 16384> part{};
  const auto drain = [&part](Fd& from, std::string& into) {
    const ssize_t count = ::read(from.get(), part.data(), part.size());
    if (count > 0) into.append(part.data(), static_cast<std::size_t>(count));
    if (count == 0 || (count < 0 && errno != EINTR)) from.reset(-1);
  };
  while (out.reader || err.reader) {
    std::array<pollfd, 3> polls = {pollfd{in.writer.get(), POLLOUT, 0}, pollfd{out.reader.get(), POLLIN, 0},
                                   pollfd{err.reader.get(), POLLIN, 0}};
    if (::poll(polls.data(), polls.size(), -1) < 0 && errno != EINTR) return;
    if (polls[0].revents != 0) {
      const ssize_t count =
          ::write(in.writer.get(), input.data() + sent, std::min<std::size_t>(input.size() - sent, 4096));
      if (count > 0) sent += static_cast<std::size_t>(count);
      if (count < 0 || sent == input.size()) in.writer.reset(-1);
    }
    if (polls[1].revents != 0) drain(out.reader, output);
    if (polls[2].revents != 0) drain(err.reader, errors);
  }
}

}  // namespace

Status enter(const Place& place) {
  // The cgroup first: its path may be another one in the mount namespace.
  if (!place.cgroup.empty()) TRY(process::write_control_file(place.cgroup + "/cgroup.procs", "0"));
  TRY(join_namespace(place.network, CLONE_NEWNET));
  if (place.mounts.empty()) return {};
  std::array<char, 4096> folder{};
  const bool known = ::getcwd(folder.data(), folder.size()) != nullptr;
  TRY(join_namespace(place.mounts, CLONE_NEWNS));
  if (!known || ::chdir(folder.data()) != 0) return {};
  return {};
}

Result<std::string> run(const std::vector<std::string>& argv, const std::string& input, const Place& place) {
  TRY_ASSIGN(Pipe in, make_pipe());
  TRY_ASSIGN(Pipe out, make_pipe());
  TRY_ASSIGN(Pipe err, make_pipe());
  const pid_t pid = ::fork();
  if (pid < 0) return from_errno("Cannot start " + argv[0], errno);
  if (pid == 0) {
    ::dup2(in.reader.get(), 0);
    ::dup2(out.writer.get(), 1);
    ::dup2(err.writer.get(), 2);
    if (auto entered = enter(place); !entered) die(entered.error());
    exec_or_die(argv);
  }
  in.reader.reset(-1);
  out.writer.reset(-1);
  err.writer.reset(-1);
  std::string output;
  std::string errors;
  exchange(in, input, out, output, err, errors);
  const int status = exit_status(pid);
  if (status == 0) return output;
  std::string why = last_line(errors);
  if (why.empty()) why = "exit status " + std::to_string(status);
  return Error{Code::failed, argv[0] + " failed: " + why};
}

Result<int> start(const std::vector<std::string>& argv, const Place& place, const std::string& log,
                  const std::vector<int>& keep) {
  const pid_t pid = ::fork();
  if (pid < 0) return from_errno("Cannot start " + argv[0], errno);
  if (pid > 0) return static_cast<int>(pid);
  ::setsid();
  const int nothing = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  ::dup2(nothing, 0);
  ::dup2(out >= 0 ? out : nothing, 1);
  ::dup2(out >= 0 ? out : nothing, 2);
  for (const int number : keep) ::fcntl(number, F_SETFD, 0);
  if (auto entered = enter(place); !entered) die(entered.error());
  exec_or_die(argv);
}

Result<int> run_attached(const std::vector<std::string>& argv, const Place& place) {
  // As a shell does: Ctrl-C is for the program.
  const auto old = std::signal(SIGINT, SIG_IGN);
  const pid_t pid = ::fork();
  if (pid == 0) {
    std::signal(SIGINT, SIG_DFL);
    if (auto entered = enter(place); !entered) die(entered.error());
    exec_or_die(argv);
  }
  const int saved = errno;
  const int status = pid < 0 ? 0 : exit_status(pid);
  std::signal(SIGINT, old);
  if (pid < 0) return from_errno("Cannot start " + argv[0], saved);
  return status;
}

Status run_in(const Place& place, const std::function<Status()>& work) {
  TRY_ASSIGN(Pipe answer, make_pipe());
  const pid_t pid = ::fork();
  if (pid < 0) return from_errno("Cannot fork", errno);
  if (pid == 0) {
    Status done = enter(place);
    if (done) done = work();
    if (done) ::_exit(0);
    const std::string text = std::string(info(done.code()).name) + "\n" + done.error().what;
    [[maybe_unused]] auto written = ::write(answer.writer.get(), text.data(), text.size());
    ::_exit(1);
  }
  answer.writer.reset(-1);
  std::string text;
  std::array<char, 4096> part{};
  for (ssize_t count = 0; (count = ::read(answer.reader.get(), part.data(), part.size())) > 0;) {
    text.append(part.data(), static_cast<std::size_t>(count));
  }
  if (exit_status(pid) == 0) return {};
  const auto line = text.find('\n');
  if (line == std::string::npos) return Error{Code::failed, "A helper process of the lab was killed."};
  return Error{code_named(text.substr(0, line)), text.substr(line + 1)};
}

std::string own_path() {
  std::array<char, 4096> path{};
  const ssize_t length = ::readlink("/proc/self/exe", path.data(), path.size());
  return length > 0 ? std::string(path.data(), static_cast<std::size_t>(length)) : "holdfast";
}

bool has_program(const std::string& name) {
  if (name.find('/') != std::string::npos) return ::access(name.c_str(), X_OK) == 0;
  const char* path = std::getenv("PATH");
  std::istringstream folders(path != nullptr ? path : "/usr/sbin:/usr/bin:/sbin:/bin");
  for (std::string folder; std::getline(folders, folder, ':');) {
    if (::access((folder + "/" + name).c_str(), X_OK) == 0) return true;
  }
  return false;
}

}  // namespace hf::lab
