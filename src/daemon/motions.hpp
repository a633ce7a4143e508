#pragma once
// Motions: the motion processes of this host (motion/motion_process.hpp), one a VM; their reports become events of the
// deciding code. Thread-safe; calls block as long as each says.
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "config/config.hpp"
#include "core/record/records.hpp"
#include "daemon/mailbox.hpp"
#include "motion/motion_process.hpp"

namespace hf::daemon {

class Motions {
 public:
  struct Place {
    motion::MotionProgram program;  // its cgroup is made: beside the VMs', which the guard freezes
    std::string address;            // "10.77.1.2": where sources reach this host
    std::string ports;              // "7450-7481": on one of these
    config::PkiConfig pki;
    std::function<std::string(const VmId&)> run_dir;
  };
  // `mailbox` must outlive the processes' threads: it goes after this.
  Motions(Place place, Mailbox& mailbox);
  ~Motions();

  // safety: kills what an earlier daemon left, so that nobody's hands are on a guest any more. Before guests are looked
  // at. Up to 10 s.
  Status begin();

  struct Listening {
    std::string endpoint, token;
  };
  // Starts the destination's process. Returns once it listens, after 30 s at most; on an error it is gone.
  // MotionFailed, Arrived follow.
  // `disks`: that come along.
  Result<Listening> receive(const record::MotionRecord& motion, const vm::VmSpec& spec,
                            std::vector<motion::IncomingDisk> disks);
  // Starts the source's process. MotionProgress, MotionReady, MotionFailed follow.
  // `disks`: that go along.
  Status send(const record::MotionRecord& motion, std::vector<std::string> disks);
  // safety: the commit was seen to succeed. MotionFinished follows.
  void tell_committed(const VmId& vm, const TaskId& id, ha::Version version);

  // When the destination's process said that all of the guest is here; nullopt: it was not of this daemon.
  std::optional<Instant> loaded_at(const VmId& vm);

  // SIGKILL; returns once it is gone, which takes 5 s at most. Fine if there is none. A source that was told of the
  // commit first has a second to hand that on.
  // safety: without an error its hands are off the guest.
  Status end(const VmId& vm);

 private:
  struct Running;
  using RunningPtr = std::shared_ptr<Running>;  // shared by the map and whoever waits for it
  motion::Leg leg_of(const record::MotionRecord& motion, const HostId& peer, std::string token) const;
  Result<RunningPtr> start(const record::MotionRecord& motion, const motion::Order& first);
  void take(Running& running, const motion::Report& report);
  RunningPtr find(const VmId& vm);

  const Place place_;
  Mailbox& mailbox_;
  std::mutex mutex_;  // of the map
  std::map<VmId, RunningPtr> running_;
};

}  // namespace hf::daemon
