#include "core/ha/task_end.hpp"

namespace hf::ha {
namespace key = record::key;

void free_of_task(record::VmRecord vm, Version version, TypedTxn& txn) {
  const std::string name = key::kVms + vm.id.text;
  vm.active_task = TaskId();
  txn.conditions.push_back({name, version});
  txn.writes.push_back({name, std::move(vm), 0});
}

void end_task(record::TaskRecord task, const Error* why, TypedTxn& txn) {
  const std::string name = key::kTasks + task.id.text;
  task.state = why == nullptr ? record::TaskState::succeeded : record::TaskState::failed;
  if (why == nullptr) {
    task.progress = 100;
  } else {
    task.error_code = info(why->code).name;
    task.message = why->what;
  }
  txn.writes.push_back({name, std::move(task), 0});
}

void end_command(const VmId& vm, const TaskId& id, const Error& why, const View& view, TypedTxn& txn) {
  auto record = view.vms.find(vm);
  auto task = view.tasks.find(id);
  if (record == view.vms.end() || record->second.record.active_task != id) return;
  free_of_task(record->second.record, record->second.version, txn);
  if (task != view.tasks.end()) end_task(task->second.record, &why, txn);
}

}  // namespace hf::ha
