#pragma once
// TaskRunner: carries out the tasks that are about a VM's disks: vm.create, vm.import, vm.resize, vm.delete. (Start,
// stop, kill and reset are the deciding code's.) A task that a crash interrupted is begun again: its steps replace
// whole files or erase them.
#include <map>
#include <mutex>
#include <set>
#include <string>

#include "api/operations.hpp"
#include "core/ha/view.hpp"
#include "daemon/surroundings.hpp"
#include "daemon/worker_pool.hpp"

namespace hf::daemon {

class TaskRunner {
 public:
  // All must outlive this.
  TaskRunner(HostId self, api::Operations& operations, const SharedSurroundings& surroundings);

  // Begins what is given to this host and not begun yet. Control thread.
  void look_at(const ha::View& view);

 private:
  struct Job {
    record::TaskRecord task;
    record::VmRecord vm;
    Epoch epoch;  // of the VM's owner record, for its erasure
  };
  void run(const Job& job);
  using Sizes = std::map<std::string, std::uint64_t>;  // of imported disks, by name
  Status create(const Job& job, Sizes& sizes);
  Status resize(const Job& job);
  Status erase(const Job& job);
  Result<std::string> path_of(const std::string& datastore) const;

  const HostId self_;
  api::Operations& operations_;
  const SharedSurroundings& surroundings_;
  std::mutex mutex_;
  std::set<TaskId> under_way_;
  WorkerPool pool_{"hf-task", 2};
};

}  // namespace hf::daemon
