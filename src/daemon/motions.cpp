#include "daemon/motions.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/log.hpp"
#include "base/overloaded.hpp"
#include "sys/pki/random.hpp"
#include "sys/process/cgroup.hpp"
#include "sys/process/clock.hpp"

namespace hf::daemon {
namespace {
constexpr Duration kKillLimit = 5s;
constexpr Duration kBeginLimit = 10s;
constexpr Duration kListenLimit = 30s;
constexpr Duration kHandOnLimit = 1s;
constexpr Duration kStopMax = 20ms;  // without --max-stop; ARCHITECTURE.md
constexpr std::uint64_t kBytesPerMbit = 125'000;
constexpr std::uint64_t kPageBytes = 4096;
constexpr int kFirstRoundShare = 90;  // percent shown: the later rounds share what is left

engine::Encryption encryption_of(record::Encryption encryption) {
  switch (encryption) {
    case record::Encryption::required: return engine::Encryption::required;
    case record::Encryption::opportunistic: return engine::Encryption::opportunistic;
    case record::Encryption::off: return engine::Encryption::off;
  }
  return engine::Encryption::required;
}

// Of the first round, and of the disks before it; memory counts as much as disks of its size.
int percent_of(const motion::Progress& progress) {
  if (progress.phase == motion::Phase::stopping) return 99;
  if (progress.round > 1) return kFirstRoundShare + static_cast<int>(std::min<std::uint64_t>(progress.round, 8));
  const std::uint64_t memory_left = progress.round == 0 ? progress.pages_all : progress.pages_left;
  const std::uint64_t all = progress.pages_all * kPageBytes + progress.disk_bytes_all;
  const std::uint64_t left = memory_left * kPageBytes + progress.disk_bytes_left;
  return all == 0 ? 0 : static_cast<int>((all - std::min(all, left)) * kFirstRoundShare / all);
}

std::uint64_t us(Duration time) { return static_cast<std::uint64_t>(time / std::chrono::microseconds(1)); }
std::uint64_t ms(Duration time) { return static_cast<std::uint64_t>(time / std::chrono::milliseconds(1)); }

record::MotionReport report_of(const record::MotionRecord& motion, const motion::Finished& finished) {
  record::MotionReport report;
  report.from = motion.from;
  report.to = motion.to;
  report.rounds = finished.rounds;
  report.zero_pages = finished.zero_pages;
  report.delta_pages = finished.delta_pages;
  report.plain_pages = finished.plain_pages;
  report.bytes_sent = finished.bytes;
  report.state_bytes = finished.state_bytes;
  report.least_share_percent = static_cast<int>(finished.least_share_percent);
  report.took_ms = ms(finished.took);
  report.slowed_ms = ms(finished.stopped_before);
  report.stop_us = us(finished.stop.total() - finished.stop.commit);  // the destination adds the rest
  report.halt_us = us(finished.stop.stop);
  report.scan_us = us(finished.stop.scan);
  report.save_us = us(finished.stop.save);
  report.copy_us = us(finished.stop.copy);
  report.load_us = us(finished.stop.load);
  report.commit_us = us(finished.stop.commit);
  report.disks = finished.disks;
  report.disk_bytes = finished.disk_bytes;
  report.tracker = finished.tracker;
  report.engine = motion.limits.engine == record::Engine::qemu ? record::Engine::qemu : record::Engine::holdfast;
  return report;
}
}  // namespace

struct Motions::Running {
  record::MotionRecord motion;
  std::mutex mutex;  // of what follows
  std::condition_variable changed;
  std::string endpoint;  // once it listens
  std::optional<Error> failed;
  std::optional<Instant> loaded_at;
  bool told_committed = false, finished = false;
  std::unique_ptr<motion::MotionProcess> process;  // last: its thread uses all of the above
};

Motions::Motions(Place place, Mailbox& mailbox) : place_(std::move(place)), mailbox_(mailbox) {}
// The processes see the end of their sockets and act on it.
Motions::~Motions() = default;

Status Motions::begin() {
  const process::Cgroup cgroup(place_.program.cgroup);
  TRY(cgroup.kill_all(kBeginLimit));
  return cgroup.create();
}

motion::Leg Motions::leg_of(const record::MotionRecord& motion, const HostId& peer, std::string token) const {
  motion::Leg leg;
  leg.motion = motion.id;
  leg.vm = motion.vm;
  leg.token = std::move(token);
  leg.peer = peer;
  leg.run_dir = place_.run_dir(motion.vm);
  leg.engine = motion.limits.engine == record::Engine::qemu ? motion::Engine::qemu : motion::Engine::holdfast;
  leg.encryption = encryption_of(motion.limits.encryption);
  leg.ca = place_.pki.ca;
  leg.certificate = place_.pki.certificate;
  leg.key = place_.pki.key;
  return leg;
}

Result<Motions::RunningPtr> Motions::start(const record::MotionRecord& motion, const motion::Order& first) {
  TRY(end(motion.vm));
  auto running = std::make_shared<Running>();
  running->motion = motion;
  // The thread that reports ends with the process object, which `running` owns.
  TRY_ASSIGN(running->process,
             motion::MotionProcess::start(place_.program, first, [this, raw = running.get()](const auto& report) {
               take(*raw, report);
             }));
  const std::lock_guard lock(mutex_);
  running_[motion.vm] = running;
  return running;
}

Result<Motions::Listening> Motions::receive(const record::MotionRecord& motion, const vm::VmSpec& spec,
                                            std::vector<motion::IncomingDisk> disks) {
  Listening listening;
  listening.token = pki::random_hex(32);
  motion::Receive order;
  order.leg = leg_of(motion, motion.from, listening.token);
  order.address = place_.address + ":" + place_.ports;
  for (const auto& nic : spec.nics) order.macs.push_back(nic.mac);
  order.disks = std::move(disks);
  TRY_ASSIGN(const RunningPtr running, start(motion, order));
  std::unique_lock lock(running->mutex);
  running->changed.wait_for(lock, kListenLimit, [&] { return running->failed || !running->endpoint.empty(); });
  listening.endpoint = running->endpoint;
  if (!listening.endpoint.empty()) return listening;
  const Error why = running->failed.value_or(Error{Code::timed_out, "The motion process did not begin to listen."});
  lock.unlock();
  TRY(end(motion.vm));
  return why;
}

Status Motions::send(const record::MotionRecord& motion, std::vector<std::string> disks) {
  motion::Send order;
  order.leg = leg_of(motion, motion.to, motion.token);
  order.endpoint = motion.endpoint;
  order.stop_max_fixed = motion.limits.max_stop_ms > 0;
  order.stop_max = order.stop_max_fixed ? std::chrono::milliseconds(motion.limits.max_stop_ms) : kStopMax;
  order.bytes_per_second = motion.limits.bandwidth_mbit * kBytesPerMbit;
  order.disks = std::move(disks);
  order.room_bytes = motion.room_bytes;
  const auto started = start(motion, order);
  return started.ok() ? Status() : Status(started.error());
}

// From a process's reader thread.
void Motions::take(Running& running, const motion::Report& report) {
  const auto& [id, vm] = std::tie(running.motion.id, running.motion.vm);
  std::lock_guard lock(running.mutex);
  std::visit(
      overloaded{
          [&](const motion::Listening& listening) { running.endpoint = listening.endpoint; },
          [&](const motion::Loaded&) { running.loaded_at = sys::boot_now(); },
          [&](const motion::Arrived& arrived) {
            mailbox_.post(ha::event::Arrived{vm, id, static_cast<ha::Version>(arrived.version)});
          },
          [&](const motion::Progress& progress) {
            mailbox_.post(ha::event::MotionProgress{vm, id, percent_of(progress)});
          },
          [&](const motion::ReadyToCommit&) { mailbox_.post(ha::event::MotionReady{vm, id}); },
          [&](const motion::Failed& failed) {
            running.failed = failed.error;
            running.finished = true;
            mailbox_.post(ha::event::MotionFailed{vm, id, failed.error});
          },
          [&](const motion::Finished& finished) {
            running.finished = true;
            mailbox_.post(ha::event::MotionFinished{vm, id, report_of(running.motion, finished)});
          },
      },
      report);
  running.changed.notify_all();
}

Motions::RunningPtr Motions::find(const VmId& vm) {
  const std::lock_guard lock(mutex_);
  auto found = running_.find(vm);
  return found == running_.end() ? nullptr : found->second;
}

void Motions::tell_committed(const VmId& vm, const TaskId& id, ha::Version version) {
  const RunningPtr running = find(vm);
  if (running == nullptr || running->motion.id != id) return;
  {
    const std::lock_guard lock(running->mutex);
    running->told_committed = true;
  }
  // If it is lost the destination reads it in the store.
  const Status told = running->process->tell(motion::Committed{static_cast<std::uint64_t>(version)});
  if (!told.ok()) log(Level::warn, "A motion process was not told of the commit.", {{"why", told.error().what}});
}

std::optional<Instant> Motions::loaded_at(const VmId& vm) {
  const RunningPtr running = find(vm);
  if (running == nullptr) return std::nullopt;
  const std::lock_guard lock(running->mutex);
  return running->loaded_at;
}

Status Motions::end(const VmId& vm) {
  const RunningPtr running = find(vm);
  if (running == nullptr) return {};
  {
    std::unique_lock lock(running->mutex);
    if (running->told_committed) running->changed.wait_for(lock, kHandOnLimit, [&] { return running->finished; });
  }
  TRY(running->process->kill(kKillLimit));
  const std::lock_guard lock(mutex_);
  auto found = running_.find(vm);
  if (found != running_.end() && found->second == running) running_.erase(found);
  return {};
}

}  // namespace hf::daemon
