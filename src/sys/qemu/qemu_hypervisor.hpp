#pragma once
// QemuHypervisor: the port Hypervisor on real QEMU processes. Owned by the daemon; destroying it leaves the
// VMs running. Threads: one watcher that sees QEMUs end, and a reader for each monitor. OnExit comes from the
// watcher, OnPause from any: they must not call back into this object, post an event instead. Decides nothing: it
// never restarts and never resumes by itself.
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "port/hypervisor.hpp"
#include "sys/process/unique_fd.hpp"
#include "sys/qemu/qemu_options.hpp"
#include "sys/qemu/qmp.hpp"

namespace hf::qemu {

class QemuHypervisor final : public Hypervisor {
 public:
  explicit QemuHypervisor(QemuOptions options);
  ~QemuHypervisor() override;

  Result<std::vector<RunningVm>> adopt(OnExit on_exit, OnPause on_pause) override;
  Result<RunningVm> launch(const LaunchRequest& request) override;
  Status resume(const VmId& vm) override;
  Status continue_paused(const VmId& vm, Epoch epoch) override;
  Status ask_to_stop(const VmId& vm) override;
  Status begin_copy(const CopyRequest& request) override;
  Result<CopyState> copy_state(const VmId& vm, const TaskId& id) override;
  Status hold_copy(const VmId& vm, const TaskId& id) override;
  Result<Instant> end_copy(const VmId& vm, const TaskId& id, bool use_new) override;
  Status kill(const VmId& vm) override;
  Status reset(const VmId& vm) override;
  Result<int> open_console(const VmId& vm) override;
  Result<std::string> console_tail(const VmId& vm, std::size_t bytes_max) override;

 private:
  struct Machine;
  // Shared by the map, the watcher and the calls under way; the last of them ends it.
  using MachinePtr = std::shared_ptr<Machine>;

  Status prepare_folders();
  void adopt_one(const VmId& vm);
  // Removes what never ran a guest.
  void clean_up_unborn(const VmId& vm, std::string_view what);
  void erase_stray_cgroups();
  Result<MachinePtr> find(const VmId& vm);
  Result<MachinePtr> find_up(const VmId& vm);
  Status command(const VmId& vm, std::string_view what);
  void settle(Machine& machine);
  std::vector<MachinePtr> machines();

  void watch();
  void wake();
  bool finish(const MachinePtr& machine);

  const QemuOptions options_;
  OnExit on_exit_;
  OnPause on_pause_;
  process::UniqueFd wake_;
  std::mutex mutex_;  // what follows
  std::condition_variable changed_;
  bool stopping_ = false;
  std::map<VmId, MachinePtr> machines_;
  std::thread watcher_;
};

}  // namespace hf::qemu
