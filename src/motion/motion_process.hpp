#pragma once
// MotionProcess: a holdfast-motion, as holdfastd sees it. It is nobody's child: when holdfastd dies, the process finds
// that out by the end of its socket, and acts on it (source.hpp). Reports come from a thread of this object.
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "motion/line_socket.hpp"
#include "motion/messages.hpp"
#include "sys/process/unique_fd.hpp"

namespace hf::motion {

struct MotionProgram {
  std::string path = "holdfast-motion";
  std::string log;     // gets its standard error, appended
  std::string cgroup;  // existing; not the VM's own, which the guard freezes
};

class MotionProcess {
 public:
  // Called for each report, and once at the end with Failed if the process ended without Arrived, Failed or Finished:
  // Code::unavailable, Guest::stopped, since nobody knows what its guest does.
  // From the object's thread; must not destroy the object.
  using OnReport = std::function<void(const Report&)>;

  // `first`: Send or Receive.
  static Result<std::unique_ptr<MotionProcess>> start(const MotionProgram& program, const Order& first,
                                                      OnReport on_report);
  // Ends the connection, as if holdfastd died.
  ~MotionProcess();

  // An error: the process has not got it, and never will.
  Status tell(const Order& order);
  // SIGKILL; returns when it is gone. safety: afterwards it has its hands off the guest.
  Status kill(Duration limit);
  int pid() const { return pid_; }

 private:
  MotionProcess(int pid, process::UniqueFd pidfd, process::UniqueFd socket, OnReport on_report);
  void read_all();

  const int pid_;
  const process::UniqueFd pidfd_;
  LineSocket socket_;
  const OnReport on_report_;
  std::thread reader_;
};

}  // namespace hf::motion
