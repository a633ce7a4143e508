#include "sys/qemu/start_qemu.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/log.hpp"
#include "sys/process/daemonize.hpp"
#include "sys/process/identity.hpp"
#include "sys/process/small_file.hpp"
#include "sys/qemu/exit_reason.hpp"
#include "sys/qemu/shim_client.hpp"
#include "sys/qemu/tap.hpp"

namespace hf::qemu {
namespace {
using Clock = std::chrono::steady_clock;
using process::UniqueFd;
constexpr Duration kConnectRetry = 10ms;
constexpr Duration kEraseLimit = 5s;
constexpr Duration kShimLimit = 2s;

Status make_dir(const std::string& path, mode_t mode, uid_t uid, gid_t gid) {
  if (::mkdir(path.c_str(), mode) < 0 && errno != EEXIST) return from_errno("Cannot create " + path, errno);
  if (::chown(path.c_str(), uid, gid) < 0)
    return from_errno("Cannot give " + path + " to QEMU's user", errno);
  return {};
}

// The locked run directory. Two launches of one VM meet here, also those of two daemons.
Result<UniqueFd> lock_run_dir(const QemuOptions& options, const RunDir& dir) {
  TRY(make_dir(dir.path, 0750, options.uid, options.gid));
  UniqueFd fd(::open(dir.path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return from_errno("Cannot open " + dir.path, errno);
  struct stat locked{}, named{};
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) < 0 || ::fstat(fd.get(), &locked) < 0 ||
      ::stat(dir.path.c_str(), &named) < 0 || locked.st_ino != named.st_ino) {
    return Error{Code::conflict,
                 "Another start or clean-up of this VM is under way on this host: try again."};
  }
  return fd;
}

// safety: at most one QEMU of a VM on this host; "cannot tell" refuses too.
Status refuse_if_alive(const QemuOptions& options, const VmId& vm) {
  TRY_ASSIGN(const bool populated, options.cgroup_of(vm).populated());
  if (populated) return Error{Code::exists, "The VM " + vm.text + " already has a process on this host."};
  const auto text = process::read_small_file(options.dir_of(vm).launch_record());
  const auto record = text ? decode_launch_record(*text) : Result<LaunchRecord>(text.error());
  if (record && process::open_process(record->pid, record->start_time)) {
    return Error{Code::exists, "The VM " + vm.text + " already runs on this host as process " +
                                   std::to_string(record->pid) +
                                   ", outside its cgroup: stop that process first."};
  }
  return {};
}

Status empty_dir(const std::string& path) {
  TRY_ASSIGN(const auto names, process::list_folder(path));
  for (const auto& name : names) {
    std::error_code problem;
    std::filesystem::remove_all(path + "/" + name, problem);
    if (problem) return from_errno("Cannot remove " + path + "/" + name, problem.value());
  }
  return {};
}

class Start {
 public:
  Start(const QemuOptions& options, const LaunchRequest& request)
      : options_(options),
        request_(request),
        dir_(options.dir_of(request.vm)),
        cgroup_(options.cgroup_of(request.vm)) {}

  Result<StartedQemu> run(QmpClient::OnEvent on_event) {
    const auto deadline = Clock::now() + options_.launch_limit;
    TRY_ASSIGN(Resolved resolved, resolve(request_, options_.firmware));
    context_ = std::move(resolved.context);
    TRY(empty_dir(dir_.path));
    TRY(create_hold_page(dir_.hold_page(), options_.gid));
    TRY(cgroup_.create());
    give_away(resolved.owned_files);
    TRY(open_taps());
    TRY(spawn());
    TRY_ASSIGN(auto monitor, wait_for_monitor(deadline, std::move(on_event)));
    TRY(note_memory_tracker());
    return StartedQemu{running_, std::move(process_.pidfd), std::move(monitor)};
  }

 private:
  // Where it fails (a file server that squashes root) QEMU may still be able to open the file, and says it if
  // not.
  void give_away(const std::vector<std::string>& files) {
    for (const auto& file : files) {
      if (::chown(file.c_str(), options_.uid, options_.gid) < 0) {
        log(Level::warn, "a file could not be given to QEMU's user", {{"file", file}});
      }
    }
  }

  Status open_taps() {
    for (std::size_t index = 0; index < request_.spec.nics.size(); ++index) {
      const auto& nic = request_.spec.nics[index];
      const auto bridge =
          std::find_if(request_.bridges.begin(), request_.bridges.end(),
                       [&](const auto& candidate) { return candidate.network == nic.network; });
      if (bridge == request_.bridges.end()) {
        return Error{Code::not_found, "The network \"" + nic.network + "\" is not on this host."};
      }
      const TapRequest tap{tap_name(request_.vm, index), bridge->bridge, bridge->vlan, nic.mac};
      TRY_ASSIGN(UniqueFd fd, open_tap(tap));
      context_.nics.at(index).tap_fd = fd.get();
      taps_.push_back(std::move(fd));
    }
    return {};
  }

  Result<process::Credentials> credentials() const {
    process::Credentials user{options_.uid, options_.gid, {}};
    struct stat kvm{};
    if (options_.accelerator.accelerator == vm::Accelerator::kvm) {
      if (::stat("/dev/kvm", &kvm) < 0) return from_errno("Cannot look at /dev/kvm", errno);
      user.groups.push_back(kvm.st_gid);
    }
    return user;
  }

  Result<process::DetachRequest> detach_request() {
    context_.qemu_binary = options_.qemu_binary;
    context_.run_dir = dir_.path;
    context_.accelerator = options_.accelerator.accelerator;
    context_.incoming = !request_.motion.empty();
    process::DetachRequest detach;
    TRY_ASSIGN(detach.argv, options_.command(request_.spec, context_));
    // Tells in QEMU's log why it ended, for a daemon that was not there (exit_reason.hpp).
    detach.argv.insert(detach.argv.end(), {"-trace", std::string(kShutdownTrace)});
    detach.environment = {"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/", "LC_ALL=C"};
    if (!options_.shim.empty()) {
      detach.environment.push_back("LD_PRELOAD=" + options_.shim);
      detach.environment.push_back("HOLDFAST_HOLD_PAGE=" + dir_.hold_page());
      detach.environment.push_back("HOLDFAST_MEMORY_SOCKET=" + dir_.memory_socket());
    }
    detach.output_path = dir_.qemu_log();
    detach.cgroup = cgroup_.path();
    for (const auto& tap : taps_) detach.inherited_fds.push_back(tap.get());
    TRY_ASSIGN(detach.credentials, credentials());
    detach.nice = options_.nice;
    detach.oom_score_adj = options_.oom_score_adj;
    return detach;
  }

  Status spawn() {
    running_ = {request_.vm,
                request_.epoch,
                0,
                cgroup_.path(),
                dir_.hold_page(),
                name_of(options_.accelerator.accelerator),
                "",
                request_.motion,
                !request_.motion.empty() ? GuestState::waits_for_memory : GuestState::stopped};
    TRY_ASSIGN(process::DetachRequest detach, detach_request());
    detach.before_exec = [&](const process::DetachedProcess& process) -> Status {
      const LaunchRecord record{request_.vm,        request_.epoch,       process.pid,
                                process.start_time, running_.accelerator, running_.memory_tracker,
                                detach.argv,        request_.motion};
      return process::replace_file(dir_.launch_record(), encode(record), 0640);
    };
    TRY_ASSIGN(process_, process::spawn_detached(detach));
    running_.pid = process_.pid;
    taps_.clear();  // QEMU's now
    return {};
  }

  // Asks the one who knows: what is refused to QEMU's user in QEMU's sandbox may not be refused to us.
  Status note_memory_tracker() {
    running_.memory_tracker = options_.shim.empty()
                                  ? "none: QEMU runs without Holdfast's shim."
                                  : describe_tracking(ask_shim(dir_.memory_socket(), kShimLimit));
    TRY_ASSIGN(const std::string text, process::read_small_file(dir_.launch_record()));
    TRY_ASSIGN(LaunchRecord record, decode_launch_record(text));
    record.memory_tracker = running_.memory_tracker;
    return process::replace_file(dir_.launch_record(), encode(record), 0640);
  }

  Error in_its_own_words(const std::string& otherwise) {
    const auto output = process::read_tail(dir_.qemu_log(), 16 * 1024);
    const std::string words = output ? last_words(*output) : "";
    return Error{Code::failed, "QEMU did not start: " + (words.empty() ? otherwise : words)};
  }

  Result<std::unique_ptr<QmpClient>> wait_for_monitor(Clock::time_point deadline,
                                                      QmpClient::OnEvent on_event) {
    for (;;) {
      auto monitor = QmpClient::connect(dir_.qmp_socket(), on_event);
      if (monitor) {
        TRY(check_stopped(**monitor, deadline - Clock::now()));
        return monitor;
      }
      // Its socket is there before it listens on it, so the socket's appearance alone would not do.
      if (process::has_ended(process_.pidfd.get(), kConnectRetry))
        return in_its_own_words("it ended at once.");
      if (Clock::now() >= deadline) return in_its_own_words("its monitor does not answer.");
    }
  }

  Status check_stopped(QmpClient& monitor, Duration limit) {
    const auto answer = monitor.execute("query-status", {}, limit);
    if (!answer) return in_its_own_words(answer.error().what);
    const auto status = nlohmann::json::parse(*answer, nullptr, false);
    // safety: nothing of the guest runs before the guard has admitted it.
    if (!status.is_object() || status.value("running", true)) {
      return Error{Code::failed, "QEMU did not start as it should: its guest already runs."};
    }
    return {};
  }

  const QemuOptions& options_;
  const LaunchRequest& request_;
  const RunDir dir_;
  const process::Cgroup cgroup_;
  vm::LaunchContext context_;
  std::vector<UniqueFd> taps_;
  RunningVm running_;
  process::DetachedProcess process_;
};

}  // namespace

Result<StartedQemu> start_qemu(const QemuOptions& options, const LaunchRequest& request,
                               QmpClient::OnEvent on_event) {
  // Held until the launch is over, success or not.
  TRY_ASSIGN(const UniqueFd lock, lock_run_dir(options, options.dir_of(request.vm)));
  TRY(refuse_if_alive(options, request.vm));
  auto started = Start(options, request).run(std::move(on_event));
  if (started) return started;
  if (const Status erased = erase_traces(options, request.vm, kEraseLimit); !erased.ok()) {
    return Error{Code::outcome_unknown, started.error().what + " And then: " + erased.error().what};
  }
  return started.error();
}

Status erase_traces(const QemuOptions& options, const VmId& vm, Duration limit) {
  const auto cgroup = options.cgroup_of(vm);
  const RunDir dir = options.dir_of(vm);
  TRY(cgroup.kill_all(limit));
  TRY(cgroup.remove());
  keep_logs(dir, options.log_dir, vm);
  std::error_code problem;
  std::filesystem::remove_all(dir.path, problem);
  if (problem) return from_errno("Cannot remove " + dir.path, problem.value());
  return {};
}

}  // namespace hf::qemu
