#include "daemon/task_runner.hpp"

#include <filesystem>

#include "base/log.hpp"
#include "core/vm/relocation.hpp"
#include "sys/datastore/datastore.hpp"
#include "sys/image/image.hpp"
#include "sys/image/seed.hpp"

namespace hf::daemon {
namespace {

namespace fs = std::filesystem;
using record::TaskKind;

bool is_about_disks(TaskKind kind) {
  return kind == TaskKind::vm_create || kind == TaskKind::vm_import || kind == TaskKind::vm_resize ||
         kind == TaskKind::vm_delete;
}

Status make_folder(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) return from_errno("Cannot make the VM's folder " + path, error.value());
  return {};
}

Status remove_folder(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) return from_errno("Cannot remove the VM's folder " + path, error.value());
  return {};
}

// Where each datastore keeps this VM's files: every datastore of its disks, and its home for the rest.
std::set<std::string> folders_of(const vm::VmSpec& spec) {
  std::set<std::string> names;
  if (!spec.datastore.empty()) names.insert(spec.datastore);
  for (const auto& disk : spec.disks) names.insert(vm::datastore_of(disk, spec));
  return names;
}

}  // namespace

TaskRunner::TaskRunner(HostId self, api::Operations& operations, const SharedSurroundings& surroundings)
    : self_(std::move(self)), operations_(operations), surroundings_(surroundings) {}

void TaskRunner::look_at(const ha::View& view) {
  for (const auto& [id, stored] : view.tasks) {
    const auto& task = stored.record;
    if (task.host != self_ || !is_about_disks(task.kind) || api::is_final(task)) continue;
    auto vm = view.vms.find(task.vm);
    if (vm == view.vms.end()) continue;
    {
      std::lock_guard lock(mutex_);
      if (!under_way_.insert(id).second) continue;
    }
    Job job{task, vm->second.record, {}};
    if (const auto* owner = view.owner(task.vm)) job.epoch = owner->record.epoch;
    pool_.submit([this, job = std::move(job)] {
      run(job);
      std::lock_guard lock(mutex_);
      under_way_.erase(job.task.id);
    });
  }
}

void TaskRunner::run(const Job& job) {
  if (!operations_.begin_task(job.task.id).ok()) return;  // final already, or the store is away: seen again later
  const bool makes = job.task.kind == TaskKind::vm_create || job.task.kind == TaskKind::vm_import;
  Sizes sizes;
  const Status outcome = makes ? create(job, sizes) : job.task.kind == TaskKind::vm_resize ? resize(job) : erase(job);
  if (!outcome.ok() && makes) {
    const Status erased = erase(job);
    if (!erased.ok()) log(Level::warn, "A failed VM left files behind.", {{"why", erased.error().what}});
  }
  const Status finished = operations_.finish_task(job.task.id, outcome, sizes);
  if (!finished.ok()) log(Level::warn, "A task's end was not written.", {{"why", finished.error().what}});
}

Result<std::string> TaskRunner::path_of(const std::string& datastore) const {
  const auto surroundings = surroundings_.get();
  auto found = surroundings->datastores.find(datastore);
  if (found == surroundings->datastores.end()) {
    return Error{Code::unavailable, "Datastore " + datastore + " is not usable on host " + self_.text + " now."};
  }
  return found->second.path;
}

Status TaskRunner::create(const Job& job, Sizes& sizes) {
  const auto& spec = job.vm.spec;
  for (const auto& name : folders_of(spec)) {
    TRY_ASSIGN(const std::string mount, path_of(name));
    const std::string folder = mount + "/" + job.vm.id.text;
    // A former attempt's leftovers: this VM has never run.
    TRY(remove_folder(folder));
    TRY(make_folder(folder));
  }
  for (const auto& disk : spec.disks) {
    TRY_ASSIGN(const std::string mount, path_of(vm::datastore_of(disk, spec)));
    const std::string path = mount + "/" + job.vm.id.text + "/" + vm::image_file(disk);
    image::NewImage wanted;
    wanted.format = disk.format;
    wanted.size_bytes = disk.size_bytes;
    if (disk.import_from.empty()) {
      TRY(image::create(path, wanted));
      continue;
    }
    image::Job progress;
    progress.on_progress = [this, &job, &disk](int percent) {
      const Status said = operations_.report_progress(job.task.id, percent, "Importing disk " + disk.name + ".");
      if (!said.ok()) log(Level::debug, "Progress was not written.", {{"why", said.error().what}});
    };
    TRY(image::import(disk.import_from, path, wanted, progress));
    TRY_ASSIGN(const image::Info made, image::info(path, disk.format));
    sizes[disk.name] = made.size_bytes;
  }
  if (!spec.cloud_init) return {};
  TRY_ASSIGN(const std::string home, path_of(spec.datastore));
  const std::string path = home + "/" + job.vm.id.text + "/" + vm::seed_file(spec);
  return image::make_seed(*spec.cloud_init, spec.name, job.vm.id.text, path);
}

Status TaskRunner::resize(const Job& job) {
  for (const auto& disk : job.vm.spec.disks) {
    if (disk.name != job.task.disk) continue;
    TRY_ASSIGN(const std::string mount, path_of(vm::datastore_of(disk, job.vm.spec)));
    return image::grow(mount + "/" + job.vm.id.text + "/" + vm::image_file(disk), disk.format, job.task.size_bytes);
  }
  return Error{Code::not_found, "The VM has no disk named " + job.task.disk + "."};
}

Status TaskRunner::erase(const Job& job) {
  for (const auto& name : folders_of(job.vm.spec)) {
    TRY_ASSIGN(const std::string mount, path_of(name));
    TRY(remove_folder(mount + "/" + job.vm.id.text));
    TRY(datastore::erase_owner(mount, job.vm.id, job.epoch));
  }
  return {};
}

}  // namespace hf::daemon
