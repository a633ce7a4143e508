#include "daemon/motion_disks.hpp"

#include <sys/statvfs.h>

#include <filesystem>

#include "core/motion/motion.hpp"
#include "sys/image/image.hpp"
#include "sys/image/seed.hpp"

namespace hf::daemon {
namespace {
Result<std::string> folder_of(const std::string& datastore, const VmId& vm, const Surroundings& surroundings) {
  const auto found = surroundings.datastores.find(datastore);
  if (found == surroundings.datastores.end()) {
    return Error{Code::unavailable, "Datastore " + datastore + " is not usable on the destination now."};
  }
  const std::string folder = found->second.path + "/" + vm.text;
  std::error_code problem;
  std::filesystem::create_directories(folder, problem);
  if (problem) return from_errno("Cannot make the VM's folder " + folder, problem.value());
  return folder;
}
}  // namespace

std::vector<std::string> outgoing_disks(const ha::action::Send& send) {
  std::vector<std::string> names;
  if (!motion::takes_disks(send.motion)) return names;
  const auto after = vm::relocated(send.vm.spec, send.motion.disks);
  if (!after.ok()) return names;
  for (const auto& disk : after->disks) {
    if (disk.tag == send.motion.disks.tag) names.push_back(disk.name);
  }
  if (after->cloud_init && after->home_tag == send.motion.disks.tag) names.emplace_back(vm::kSeedName);
  return names;
}

Result<std::vector<motion::IncomingDisk>> make_incoming_disks(const ha::action::Prepare& prepare,
                                                              const Surroundings& surroundings) {
  const vm::VmSpec& spec = prepare.vm.spec;
  const std::string& tag = prepare.motion.disks.tag;
  std::vector<motion::IncomingDisk> disks;
  for (const auto& disk : spec.disks) {
    if (disk.tag != tag) continue;
    TRY_ASSIGN(const std::string folder, folder_of(vm::datastore_of(disk, spec), prepare.vm.id, surroundings));
    const std::string path = folder + "/" + vm::image_file(disk);
    image::NewImage wanted;
    wanted.format = disk.format;
    wanted.size_bytes = disk.size_bytes;
    TRY(image::create(path, wanted));
    disks.push_back({disk.name, path, disk.format == vm::DiskFormat::qcow2 ? "qcow2" : "raw"});
  }
  if (!spec.cloud_init || spec.home_tag != tag) return disks;
  TRY_ASSIGN(const std::string folder, folder_of(spec.datastore, prepare.vm.id, surroundings));
  const std::string path = folder + "/" + vm::seed_file(spec);
  // It has its size so; its content comes as a disk's, since the guest may hold parts of it.
  TRY(image::make_seed(*spec.cloud_init, spec.name, prepare.vm.id.text, path));
  disks.push_back({std::string(vm::kSeedName), path, "raw"});
  return disks;
}

std::uint64_t room_for_disks(const ha::action::Prepare& prepare, const Surroundings& surroundings) {
  const auto found = surroundings.datastores.find(prepare.motion.disks.datastore);
  struct statvfs stats{};
  if (found == surroundings.datastores.end() || ::statvfs(found->second.path.c_str(), &stats) < 0) return 0;
  return std::uint64_t{stats.f_bavail} * stats.f_frsize;
}

}  // namespace hf::daemon
