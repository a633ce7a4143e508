#include "sys/qemu/qemu_hypervisor.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/ensure.hpp"
#include "base/log.hpp"
#include "sys/process/clock.hpp"
#include "sys/process/hurry.hpp"
#include "sys/process/identity.hpp"
#include "sys/process/small_file.hpp"
#include "sys/qemu/disk_copy.hpp"
#include "sys/qemu/engine_monitor.hpp"
#include "sys/qemu/exit_reason.hpp"
#include "sys/qemu/guest_agent.hpp"
#include "sys/qemu/pause_note.hpp"
#include "sys/qemu/start_qemu.hpp"
#include "sys/qemu/unix_socket.hpp"

namespace hf::qemu {
namespace {
using Clock = std::chrono::steady_clock;
constexpr Duration kStatusLimit = 1s;
constexpr Duration kCommandLimit = 5s;
constexpr Duration kAgentLimit = 2s;
constexpr Duration kKillLimit = 10s;
constexpr Duration kKillRound = 200ms;
constexpr Duration kBusyTick = 1s;    // something is to be tried again
constexpr Duration kQuietTick = 10s;  // logs are looked at
constexpr std::size_t kLastLog = 16 * 1024;

// What the monitor said about pauses and the end. Shared by the machine and its monitor's reader, which may outlive
// each other.
class MonitorNote {
 public:
  MonitorNote(const VmId& vm, Epoch epoch, Hypervisor::OnPause on_pause)
      : on_pause_(std::move(on_pause)), pause_(vm, epoch) {}

  void take(const std::string& event, const std::string& data) {
    jobs.take(event, data);
    const std::lock_guard lock(mutex_);
    if (event == "SHUTDOWN") take_shutdown(data);
    if (event == "MIGRATION" && data.find("\"completed\"") != std::string::npos) has_loaded_ = true;
    tell(pause_.on_event(event, data));
  }
  void take_answer(std::optional<DiskError> error) {
    const std::lock_guard lock(mutex_);
    tell(pause_.on_answer(std::move(error)));
  }
  // The guest's memory and devices have come: QEMU does not wait for them any more.
  bool has_loaded() {
    const std::lock_guard lock(mutex_);
    return has_loaded_;
  }
  std::string shutdown_reason() {
    const std::lock_guard lock(mutex_);
    return shutdown_reason_;
  }
  JobNote jobs;

 private:
  void take_shutdown(const std::string& data) {
    const auto object = nlohmann::json::parse(data, nullptr, false);
    if (!object.is_object() || !object.contains("reason") || !object["reason"].is_string()) return;
    shutdown_reason_ = object["reason"].get<std::string>();
  }
  // With the lock, so that what is told is told in order.
  void tell(const std::optional<VmPause>& pause) {
    if (pause && on_pause_) on_pause_(*pause);
  }

  const Hypervisor::OnPause on_pause_;
  std::mutex mutex_;  // what follows
  bool has_loaded_ = false;
  std::string shutdown_reason_;
  PauseNote pause_;
};

QmpClient::OnEvent noting(const std::shared_ptr<MonitorNote>& note) {
  return [note](const std::string& event, const std::string& data) { note->take(event, data); };
}

int milliseconds(Duration duration) {
  return static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(duration).count());
}

}  // namespace

// One QEMU. `vm` and `pidfd` are written before the machine is `up` and not after.
struct QemuHypervisor::Machine {
  Machine(const VmId& id, Epoch epoch, const OnPause& on_pause)
      : note(std::make_shared<MonitorNote>(id, epoch, on_pause)) {}

  RunningVm vm;
  RunDir dir;
  process::UniqueFd pidfd;
  const std::shared_ptr<MonitorNote> note;
  std::mutex ending_copy;           // of disks: one at a time
  std::atomic<bool> up = false;     // launched
  std::atomic<bool> ended = false;  // its process is gone; to be cleaned up
  std::atomic<bool> kill_requested = false;
  std::atomic<bool> to_be_settled = false;  // it was let run
  std::atomic<bool> to_be_asked = false;  // the monitor was connected late: events before that were not heard

  // Connects if there is no connection. QEMU need not be awake for it.
  Result<std::shared_ptr<QmpClient>> monitor() {
    const std::lock_guard lock(mutex_);
    if (!monitor_ || monitor_->has_closed(0s)) {
      monitor_.reset();
      TRY_ASSIGN(monitor_, QmpClient::connect(dir.qmp_socket(), noting(note)));
      to_be_asked = true;
    }
    return monitor_;
  }
  // query_status(); empty also where nobody listens.
  std::string status(Duration limit) {
    const auto qmp = monitor();
    return qmp ? query_status(**qmp, limit) : std::string();
  }
  // Tells of a pause, or of its end, that no event was heard of. False: to be asked again; a frozen one is not waited
  // for.
  bool ask_about_pause() {
    const auto qmp = monitor();
    if (!qmp.ok() || !(*qmp)->is_ready()) return false;
    const auto status = (*qmp)->execute("query-status", {}, 1s);
    if (!status.ok()) return false;
    if (!is_paused_by_disk(*status)) {
      note->take_answer(std::nullopt);
    } else {
      const auto disks = (*qmp)->execute("query-block", {}, 1s);
      if (!disks.ok()) return false;
      note->take_answer(disk_error_of_query(*disks));
    }
    to_be_asked = false;
    return true;
  }
  void set_monitor(std::unique_ptr<QmpClient> monitor) {
    const std::lock_guard lock(mutex_);
    monitor_ = std::move(monitor);
  }
  // All that it said has been heard.
  void hear_out() {
    std::shared_ptr<QmpClient> last;
    {
      const std::lock_guard lock(mutex_);
      last = monitor_;
    }
    if (last) last->has_closed(1s);
  }

 private:
  std::mutex mutex_;
  std::shared_ptr<QmpClient> monitor_;  // a call may still use it when it is replaced
};

QemuHypervisor::QemuHypervisor(QemuOptions options)
    : options_(std::move(options)), wake_(::eventfd(0, EFD_CLOEXEC)) {
  ENSURE(wake_, "the kernel gives an eventfd");
}

QemuHypervisor::~QemuHypervisor() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake();
  if (watcher_.joinable()) watcher_.join();
}

// --- finding again
// -----------------------------------------------------------------------------------------------------

Status QemuHypervisor::prepare_folders() {
  std::error_code problem;
  std::filesystem::create_directories(options_.run_dir + "/vms", problem);
  if (problem) return from_errno("Cannot create " + options_.run_dir + "/vms", problem.value());
  // QEMU's user passes through both; what is below a VM's own folder is its own.
  if (::chmod((options_.run_dir + "/vms").c_str(), 0755) < 0)
    return from_errno("Cannot open up the run folder", errno);
  return process::Cgroup(options_.cgroup_root + "/vms").create();
}

Result<std::vector<RunningVm>> QemuHypervisor::adopt(OnExit on_exit, OnPause on_pause) {
  ENSURE(!watcher_.joinable(), "adopt() is called once");
  on_exit_ = std::move(on_exit);
  on_pause_ = std::move(on_pause);
  TRY(prepare_folders());
  TRY_ASSIGN(const auto names, process::list_folder(options_.run_dir + "/vms"));
  for (const auto& name : names) adopt_one(VmId(name));
  erase_stray_cgroups();
  std::vector<RunningVm> running;
  for (const auto& machine : machines()) {
    if (!machine->ended) running.push_back(machine->vm);
  }
  watcher_ = std::thread([this] { watch(); });
  return running;
}

void QemuHypervisor::clean_up_unborn(const VmId& vm, std::string_view what) {
  const Status erased = erase_traces(options_, vm, kKillLimit);
  log(erased.ok() ? Level::info : Level::error, what,
      {{"vm", vm.text}, {"result", erased.ok() ? "done" : erased.error().what}});
}

void QemuHypervisor::adopt_one(const VmId& vm) {
  const RunDir dir = options_.dir_of(vm);
  const auto text = process::read_small_file(dir.launch_record());
  const auto record = text ? decode_launch_record(*text) : Result<LaunchRecord>(text.error());
  if (!record || record->vm != vm) {
    // The record is written before QEMU starts: without it no guest ever ran here.
    return clean_up_unborn(vm, "a launch that was cut short is cleaned up");
  }
  const auto cgroup = options_.cgroup_of(vm);
  auto machine = std::make_shared<Machine>(vm, record->epoch, on_pause_);
  machine->vm = {vm,
                 record->epoch,
                 record->pid,
                 cgroup.path(),
                 dir.hold_page(),
                 record->accelerator,
                 record->memory_tracker,
                 record->motion};
  machine->dir = dir;
  machine->up = true;
  auto pidfd = process::open_process(record->pid, record->start_time);
  const auto members = cgroup.processes();
  const bool is_ours =
      pidfd && members && std::find(members->begin(), members->end(), record->pid) != members->end();
  if (is_ours) {
    machine->pidfd = std::move(*pidfd);
    const std::string status = machine->status(kStatusLimit);
    // safety: launched, but never resumed: its right was never confirmed to the end, and nobody would ever resume it.
    // One that does not answer had been resumed and is frozen.
    if (status == "prelaunch") return clean_up_unborn(vm, "a VM that was launched but not resumed is ended");
    machine->vm.guest = guest_state(status);
    process::end_hurry(record->pid, options_.nice);  // of a motion whose processes were killed with that daemon
  }
  machine->ended = !is_ours;
  log(Level::info, is_ours ? "a running VM is taken up again" : "a VM ended while no daemon ran",
      {{"vm", vm.text}, {"epoch", std::to_string(record->epoch.number)}, {"pid", std::to_string(record->pid)}});
  const std::lock_guard lock(mutex_);
  machines_[vm] = machine;
}

// A process without a run directory cannot be managed, and its VM may be needed elsewhere.
void QemuHypervisor::erase_stray_cgroups() {
  const auto names = process::list_folder(options_.cgroup_root + "/vms");
  if (!names) return;
  for (const auto& name : *names) {
    const VmId vm(name);
    if (!std::filesystem::is_directory(options_.cgroup_of(vm).path()) || find(vm)) continue;
    const Status erased = erase_traces(options_, vm, kKillLimit);
    log(Level::warn, "a cgroup without a run directory is cleaned up",
        {{"vm", vm.text}, {"result", erased.ok() ? "done" : erased.error().what}});
  }
}

// --- commands
// ----------------------------------------------------------------------------------------------------------

Result<QemuHypervisor::MachinePtr> QemuHypervisor::find(const VmId& vm) {
  const std::lock_guard lock(mutex_);
  const auto found = machines_.find(vm);
  if (found == machines_.end())
    return Error{Code::not_found, "The VM " + vm.text + " does not run on this host."};
  return found->second;
}

Result<QemuHypervisor::MachinePtr> QemuHypervisor::find_up(const VmId& vm) {
  TRY_ASSIGN(MachinePtr machine, find(vm));
  if (!machine->up) return Error{Code::conflict, "The VM " + vm.text + " is being started: try again."};
  return machine;
}

std::vector<QemuHypervisor::MachinePtr> QemuHypervisor::machines() {
  const std::lock_guard lock(mutex_);
  std::vector<MachinePtr> all;
  for (const auto& [vm, machine] : machines_) {
    if (machine->up) all.push_back(machine);
  }
  return all;
}

Result<RunningVm> QemuHypervisor::launch(const LaunchRequest& request) {
  ENSURE(watcher_.joinable(), "adopt() comes first");
  if (request.vm.empty() || request.vm.text.find('/') != std::string::npos ||
      request.vm.text.front() == '.') {
    return Error{Code::invalid, "\"" + request.vm.text + "\" is not a VM id."};
  }
  auto machine = std::make_shared<Machine>(request.vm, request.epoch, on_pause_);
  machine->dir = options_.dir_of(request.vm);
  {
    const std::lock_guard lock(mutex_);
    // safety: at most one QEMU of a VM on this host; a second launch waits for nothing, it is refused.
    const auto [entry, is_new] = machines_.emplace(request.vm, machine);
    if (!is_new && entry->second->ended) {
      return Error{Code::conflict,
                   "The VM " + request.vm.text + " has ended and is being cleaned up: try again."};
    }
    if (!is_new) return Error{Code::exists, "The VM " + request.vm.text + " already runs on this host."};
  }
  auto started = start_qemu(options_, request, noting(machine->note));
  {
    const std::lock_guard lock(mutex_);
    if (started) {
      machine->vm = started->vm;
      machine->pidfd = std::move(started->pidfd);
      machine->set_monitor(std::move(started->monitor));
      machine->up = true;
    } else {
      machines_.erase(request.vm);
    }
    changed_.notify_all();
  }
  wake();
  if (!started) return because("Cannot start " + request.vm.text, started.error());
  return started->vm;
}

Status QemuHypervisor::command(const VmId& vm, std::string_view what) {
  TRY_ASSIGN(const MachinePtr machine, find_up(vm));
  TRY_ASSIGN(const auto monitor, machine->monitor());
  const auto answer = monitor->execute(what, {}, kCommandLimit);
  if (!answer) return answer.error();
  return {};
}

// safety: the caller has been told by the guard that the VM is admitted.
Status QemuHypervisor::resume(const VmId& vm) {
  TRY_ASSIGN(const MachinePtr machine, find_up(vm));
  const bool came = !machine->vm.motion.empty(), did_not_answer = machine->vm.guest == GuestState::unknown;
  if ((came && !machine->note->has_loaded()) || did_not_answer) {
    const std::string status = machine->status(kStatusLimit);
    // safety: as in adopt_one, which could not see it.
    if (did_not_answer && status == "prelaunch") {
      return Error{Code::denied, "The VM " + vm.text + " was launched, but never let run: kill it."};
    }
    // safety: QEMU takes a `cont` before the memory is there as "run as soon as it is", whoever owns the VM by then.
    if (guest_state(status) == GuestState::waits_for_memory) {
      return Error{Code::conflict, "The VM " + vm.text + " still waits for its memory: it cannot run yet."};
    }
    if (guest_state(status) == GuestState::unknown) {
      return Error{Code::timed_out, "The VM " + vm.text + " does not answer: it may be frozen."};
    }
  }
  TRY(command(vm, "cont"));
  machine->to_be_settled = true;
  wake();
  return {};
}

// What need not be done before the guest runs. A motion may have hurried QEMU, and called the guest to another host, or
// from there.
void QemuHypervisor::settle(Machine& machine) {
  process::end_hurry(machine.vm.pid, options_.nice);
  const auto monitor = machine.monitor();
  const Status told = monitor.ok() ? announce_self(**monitor, kCommandLimit) : Status(monitor.error());
  if (!told.ok()) {
    log(Level::warn, "a VM was not announced to its networks",
        {{"vm", machine.vm.vm.text}, {"why", told.error().what}});
  }
}

Status QemuHypervisor::continue_paused(const VmId& vm, Epoch epoch) {
  TRY_ASSIGN(const MachinePtr machine, find_up(vm));
  if (machine->vm.epoch != epoch) {
    return Error{Code::conflict, "The VM " + vm.text + " has been started again: that pause is over."};
  }
  TRY_ASSIGN(const auto monitor, machine->monitor());
  TRY_ASSIGN(const std::string status, monitor->execute("query-status", {}, kCommandLimit));
  if (!is_paused_by_disk(status)) {
    // safety: not resumed, whatever it waits for: it may be the guard's word.
    machine->note->take_answer(std::nullopt);
    return {};
  }
  // safety: it had been resumed, so admitted, by whoever launched this epoch.
  TRY(monitor->execute("cont", {}, kCommandLimit));
  return {};
}

Status QemuHypervisor::reset(const VmId& vm) {
  TRY_ASSIGN(const MachinePtr machine, find_up(vm));
  TRY_ASSIGN(const auto monitor, machine->monitor());
  const auto deadline = Clock::now() + kCommandLimit;
  TRY_ASSIGN(std::string status, monitor->execute("query-status", {}, kCommandLimit));
  TRY(monitor->execute("system_reset", {}, kCommandLimit));
  if (!is_paused_by_disk(status)) return {};
  // QEMU resets a paused guest a moment after its answer, and leaves it as one that was never resumed.
  while (is_paused_by_disk(status) && Clock::now() < deadline) {
    TRY_ASSIGN(status, monitor->execute("query-status", {}, deadline - Clock::now()));
  }
  // safety: this QEMU had been resumed, so admitted: else no disk error had paused it.
  TRY(monitor->execute("cont", {}, kCommandLimit));
  return {};
}

// --- disks that get other images
// -------------------------------------------------------------------------------------

Status QemuHypervisor::begin_copy(const CopyRequest& request) {
  TRY_ASSIGN(const MachinePtr machine, find_up(request.vm));
  TRY_ASSIGN(const auto monitor, machine->monitor());
  for (const auto& disk : request.disks) {
    // Where it fails, QEMU may still be able to open it, and says it if not.
    if (::chown(disk.path.c_str(), options_.uid, options_.gid) < 0) {
      log(Level::warn, "a file could not be given to QEMU's user", {{"file", disk.path}});
    }
  }
  return DiskCopy(*monitor, machine->note->jobs, request.id).begin(request);
}

Result<CopyState> QemuHypervisor::copy_state(const VmId& vm, const TaskId& id) {
  TRY_ASSIGN(const MachinePtr machine, find_up(vm));
  TRY_ASSIGN(const auto monitor, machine->monitor());
  return DiskCopy(*monitor, machine->note->jobs, id).state();
}

Status QemuHypervisor::hold_copy(const VmId& vm, const TaskId& id) {
  TRY_ASSIGN(const MachinePtr machine, find_up(vm));
  TRY_ASSIGN(const auto monitor, machine->monitor());
  // The guest waits until the copy has ended.
  process::hurry(machine->vm.pid);
  return DiskCopy(*monitor, machine->note->jobs, id).hold();
}

Result<Instant> QemuHypervisor::end_copy(const VmId& vm, const TaskId& id, bool use_new) {
  const auto machine = find(vm);
  if (!machine.ok() || (*machine)->ended) return sys::boot_now();
  if (!(*machine)->up) return Error{Code::conflict, "The VM " + vm.text + " is being started: try again."};
  TRY_ASSIGN(const auto monitor, (*machine)->monitor());
  const std::lock_guard lock((*machine)->ending_copy);
  DiskCopy copy(*monitor, (*machine)->note->jobs, id);
  TRY(copy.let_go(use_new));
  const Instant went_on = sys::boot_now();
  process::end_hurry((*machine)->vm.pid, options_.nice);
  TRY(copy.clean_up(use_new));
  return went_on;
}

Status QemuHypervisor::ask_to_stop(const VmId& vm) {
  TRY_ASSIGN(const MachinePtr machine, find_up(vm));
  if (ask_guest_to_shut_down(machine->dir.agent_socket(), kAgentLimit).ok()) return {};
  return command(vm, "system_powerdown");
}

Status QemuHypervisor::kill(const VmId& vm) {
  const auto deadline = Clock::now() + kKillLimit;
  const auto found = find(vm);
  if (!found) {
    if (!options_.cgroup_of(vm).exists()) return found.error();
    return erase_traces(options_, vm, kKillLimit);
  }
  (*found)->kill_requested = true;
  log(Level::info, "a VM is killed", {{"vm", vm.text}});
  // Again and again, because a launch under way may not have put its process into the cgroup yet. The watcher
  // cleans up.
  for (;;) {
    TRY(options_.cgroup_of(vm).kill_all(std::max<Duration>(deadline - Clock::now(), kKillRound)));
    std::unique_lock lock(mutex_);
    const auto is_gone = [&] {
      const auto entry = machines_.find(vm);
      return entry == machines_.end() || entry->second != *found;
    };
    if (changed_.wait_for(lock, kKillRound, is_gone)) return {};
    if (Clock::now() >= deadline) {
      return Error{Code::outcome_unknown, "The VM " + vm.text + " was killed but is not cleaned up yet."};
    }
  }
}

Result<int> QemuHypervisor::open_console(const VmId& vm) {
  TRY_ASSIGN(const MachinePtr machine, find_up(vm));
  TRY_ASSIGN(process::UniqueFd fd, connect_unix(machine->dir.console_socket()));
  const int flags = ::fcntl(fd.get(), F_GETFL);
  if (::fcntl(fd.get(), F_SETFL, flags & ~O_NONBLOCK) < 0) return from_errno("Cannot use the console", errno);
  return fd.release();
}

Result<std::string> QemuHypervisor::console_tail(const VmId& vm, std::size_t bytes_max) {
  if (const auto machine = find(vm)) return log_tail((*machine)->dir.console_log(), bytes_max);
  const std::string kept = options_.log_dir + "/" + vm.text + "-console.log";
  if (options_.log_dir.empty() || !std::filesystem::exists(kept)) {
    return Error{Code::not_found, "The VM " + vm.text + " has not run on this host lately."};
  }
  return log_tail(kept, bytes_max);
}

// --- watching
// ----------------------------------------------------------------------------------------------------------

void QemuHypervisor::wake() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written =
      ::write(wake_.get(), &one, sizeof one);  // cannot fail below 2^64 wakes
}

void QemuHypervisor::watch() {
  for (bool must_retry = true;;) {
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) return;
    }
    must_retry = false;
    for (const auto& machine : machines()) {
      if (machine->ended) {
        must_retry |= !finish(machine);
        continue;
      }
      if (machine->to_be_settled.exchange(false)) settle(*machine);
      must_retry |= !machine->monitor().ok() || (machine->to_be_asked && !machine->ask_about_pause());
      for (const auto& path : {machine->dir.console_log(), machine->dir.qemu_log()}) {
        const Status trimmed = trim_log(path, options_.log_bytes_max);
        if (!trimmed.ok()) log(Level::warn, "a log is not trimmed", {{"why", trimmed.error().what}});
      }
    }
    std::vector<pollfd> polled{{wake_.get(), POLLIN, 0}};
    const auto watched = machines();
    for (const auto& machine : watched)
      polled.push_back({machine->ended ? -1 : machine->pidfd.get(), POLLIN, 0});
    ::poll(polled.data(), polled.size(), milliseconds(must_retry ? kBusyTick : kQuietTick));
    std::uint64_t wakes = 0;
    if (polled[0].revents != 0 && ::read(wake_.get(), &wakes, sizeof wakes) < 0) continue;
    for (std::size_t index = 0; index < watched.size(); ++index) {
      if (polled[index + 1].revents != 0) watched[index]->ended = true;
    }
  }
}

// False: to be tried again.
bool QemuHypervisor::finish(const MachinePtr& machine) {
  machine->hear_out();
  const auto output = process::read_tail(machine->dir.qemu_log(), kLastLog);
  const ExitReason reason = explain_exit(
      {machine->kill_requested, machine->note->shutdown_reason(), output ? *output : std::string()});
  // safety: an exit is reported only when nothing of the VM lives on this host any more.
  if (const Status erased = erase_traces(options_, machine->vm.vm, kKillRound); !erased.ok()) {
    log(Level::error, "an ended VM cannot be cleaned up yet",
        {{"vm", machine->vm.vm.text}, {"why", erased.error().what}});
    return false;
  }
  {
    const std::lock_guard lock(mutex_);
    machines_.erase(machine->vm.vm);
    changed_.notify_all();
  }
  log(Level::info, "a VM ended", {{"vm", machine->vm.vm.text}, {"why", reason.text}});
  on_exit_({machine->vm.vm, machine->vm.epoch, reason.kind, reason.text, machine->vm.motion});
  return true;
}

}  // namespace hf::qemu
