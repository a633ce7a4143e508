#include "motion/motion_process.hpp"

#include <sys/socket.h>
#include <sys/syscall.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>

#include "base/break_point.hpp"
#include "base/ensure.hpp"
#include "base/log.hpp"
#include "sys/process/daemonize.hpp"
#include "sys/process/identity.hpp"

namespace hf::motion {
namespace {
constexpr Duration kTellLimit = 2s;

bool is_last(const Report& report) {
  return std::holds_alternative<Arrived>(report) || std::holds_alternative<Failed>(report) ||
         std::holds_alternative<Finished>(report);
}

}  // namespace

Result<std::unique_ptr<MotionProcess>> MotionProcess::start(const MotionProgram& program, const Order& first,
                                                            OnReport on_report) {
  const bool sends = std::holds_alternative<Send>(first);
  ENSURE(sends || std::holds_alternative<Receive>(first), "a motion process is told its side first");
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
    return from_errno("Cannot make a socket for a motion process", errno);
  }
  process::UniqueFd ours(ends[0]);
  const process::UniqueFd theirs(ends[1]);
  process::DetachRequest request;
  request.argv = {program.path, sends ? "send" : "receive", std::to_string(theirs.get())};
  request.environment = {"PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C"};
  if (const char* path = std::getenv(kBreakFile)) request.environment.push_back(std::string(kBreakFile) + "=" + path);
  request.output_path = program.log;
  request.cgroup = program.cgroup;
  request.inherited_fds = {theirs.get()};
  request.before_exec = [](const process::DetachedProcess&) { return Status(); };
  TRY_ASSIGN(process::DetachedProcess started, process::spawn_detached(request));
  std::unique_ptr<MotionProcess> made(
      new MotionProcess(started.pid, std::move(started.pidfd), std::move(ours), std::move(on_report)));
  TRY(made->tell(first));
  return made;
}

MotionProcess::MotionProcess(int pid, process::UniqueFd pidfd, process::UniqueFd socket, OnReport on_report)
    : pid_(pid), pidfd_(std::move(pidfd)), socket_(std::move(socket)), on_report_(std::move(on_report)) {
  reader_ = std::thread([this] { read_all(); });
}

MotionProcess::~MotionProcess() {
  socket_.shut_down();
  reader_.join();
}

void MotionProcess::read_all() {
  for (bool ended = false;;) {
    const auto line = socket_.read(kLineMax);
    auto report =
        line && *line ? decode_report(**line) : Result<Report>(Error{Code::unavailable, "It has ended."});
    if (!report) {
      if (report.code() == Code::invalid)
        log(Level::error, "a motion process is not understood", {{"why", report.error().what}});
      if (!ended)
        on_report_(Failed{{Code::unavailable, "The motion process ended before its work."}, Guest::stopped});
      return;
    }
    ended = ended || is_last(*report);
    on_report_(*report);
  }
}

Status MotionProcess::tell(const Order& order) { return socket_.write(encode(order), kTellLimit); }

Status MotionProcess::kill(Duration limit) {
  ::syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0);  // gone already: as wanted
  if (process::has_ended(pidfd_.get(), limit)) return {};
  return Error{Code::outcome_unknown, "The motion process was killed but has not ended yet."};
}

}  // namespace hf::motion
