#include "sys/qemu/resolve.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>

#include "core/vm/identity.hpp"
#include "core/vm/relocation.hpp"
#include "sys/process/small_file.hpp"
#include "sys/process/unique_fd.hpp"

namespace hf::qemu {
namespace {
constexpr std::size_t kFirmwareMax = 64 << 20;

Result<std::string> mount_of(const LaunchRequest& request, const std::string& datastore) {
  for (const auto& [name, path] : request.datastore_paths) {
    if (name == datastore) return path;
  }
  return Error{Code::not_found, "The datastore \"" + datastore + "\" is not usable on this host."};
}

Status must_exist(const std::string& path, const std::string& what) {
  struct stat status{};
  if (::stat(path.c_str(), &status) == 0) return {};
  if (errno == ENOENT) return Error{Code::not_found, what + " is missing: there is no " + path + "."};
  return from_errno("Cannot look at " + what + ", " + path, errno);
}

// O_DIRECT is refused by some file systems, and only opening tells.
bool takes_direct_io(const std::string& path) {
  return static_cast<bool>(process::UniqueFd(::open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC)));
}

bool is_block_device(const std::string& path) {
  struct stat status{};
  return ::stat(path.c_str(), &status) == 0 && S_ISBLK(status.st_mode);
}

vm::DiskFormat format_by_name(const std::string& path) {
  return path.ends_with(".qcow2") ? vm::DiskFormat::qcow2 : vm::DiskFormat::raw;
}

// "<datastore>:<path below it>", or an absolute path.
Result<std::string> resolve_reference(const LaunchRequest& request, const std::string& reference) {
  if (reference.empty() || reference.front() == '/') return reference;
  const auto colon = reference.find(':');
  if (colon == std::string::npos) {
    return Error{Code::invalid, "\"" + reference + "\" is neither <datastore>:<path> nor an absolute path."};
  }
  const std::filesystem::path below = std::filesystem::path(reference.substr(colon + 1)).lexically_normal();
  if (below.is_absolute() || below.empty() || *below.begin() == "..") {
    return Error{Code::invalid, "\"" + reference + "\" leaves its datastore."};
  }
  TRY_ASSIGN(const std::string mount, mount_of(request, reference.substr(0, colon)));
  return mount + "/" + below.string();
}

class Resolver {
 public:
  Resolver(const LaunchRequest& request, const Firmware& firmware) : request_(request), firmware_(firmware) {}

  Result<Resolved> run() {
    made_.context.vm_id = request_.vm.text;
    made_.context.uuid = vm::uuid_of(request_.vm);
    for (const auto& disk : request_.spec.disks) TRY(add_disk(disk));
    for (const auto& cdrom : request_.spec.cdroms) TRY(add_cdrom(cdrom));
    if (request_.spec.cloud_init) TRY(add_seed());
    for (const auto& nic : request_.spec.nics) made_.context.nics.push_back({nic.mac, nic.model, -1});
    if (request_.spec.direct_kernel) TRY(add_kernel(*request_.spec.direct_kernel));
    if (request_.spec.firmware == vm::Firmware::uefi) TRY(add_firmware());
    return std::move(made_);
  }

 private:
  Result<std::string> folder(const std::string& datastore) {
    TRY_ASSIGN(const std::string mount,
               mount_of(request_, datastore.empty() ? request_.spec.datastore : datastore));
    return mount + "/" + request_.vm.text;
  }

  Status add_disk(const vm::Disk& disk) {
    TRY_ASSIGN(std::string path, folder(disk.datastore));
    path += "/" + vm::image_file(disk);
    TRY(must_exist(path, "The disk \"" + disk.name + "\""));
    made_.context.disks.push_back({.name = disk.name,
                                   .path = path,
                                   .format = disk.format,
                                   .direct_io = takes_direct_io(path),
                                   .block_device = is_block_device(path)});
    made_.owned_files.push_back(path);
    return {};
  }

  Status add_cdrom(const vm::Cdrom& cdrom) {
    TRY_ASSIGN(const std::string path, resolve_reference(request_, cdrom.image));
    TRY(must_exist(path, "The image of CD-ROM \"" + cdrom.name + "\""));
    made_.context.disks.push_back({.name = cdrom.name,
                                   .path = path,
                                   .format = format_by_name(path),
                                   .direct_io = takes_direct_io(path),
                                   .read_only = true,
                                   .cdrom = true,
                                   .block_device = is_block_device(path)});
    return {};
  }

  Status add_seed() {
    TRY_ASSIGN(const std::string path, folder(""));
    const std::string seed = path + "/" + vm::seed_file(request_.spec);
    TRY(must_exist(seed, "The cloud-init seed"));
    made_.context.disks.push_back({.name = std::string(vm::kSeedName),
                                   .path = seed,
                                   .format = vm::DiskFormat::raw,
                                   .direct_io = takes_direct_io(seed),
                                   .read_only = true});
    made_.owned_files.push_back(seed);
    return {};
  }

  Status add_kernel(const vm::DirectKernel& kernel) {
    TRY_ASSIGN(made_.context.kernel, resolve_reference(request_, kernel.kernel));
    TRY_ASSIGN(made_.context.initrd, resolve_reference(request_, kernel.initrd));
    TRY(must_exist(made_.context.kernel, "The kernel"));
    if (!kernel.initrd.empty()) TRY(must_exist(made_.context.initrd, "The initrd"));
    return {};
  }

  Status add_firmware() {
    TRY_ASSIGN(const std::string own, folder(""));
    TRY(must_exist(firmware_.code, "The UEFI firmware (package ovmf)"));
    made_.context.firmware_code = firmware_.code;
    made_.context.firmware_vars = own + "/" + vm::variables_file(request_.spec);
    struct stat status{};
    if (::stat(made_.context.firmware_vars.c_str(), &status) < 0) {
      TRY_ASSIGN(const std::string fresh, process::read_small_file(firmware_.vars, kFirmwareMax));
      TRY(process::replace_file(made_.context.firmware_vars, fresh, 0600));
    }
    made_.context.firmware_direct_io = takes_direct_io(made_.context.firmware_vars);
    made_.owned_files.push_back(made_.context.firmware_vars);
    return {};
  }

  const LaunchRequest& request_;
  const Firmware& firmware_;
  Resolved made_;
};

}  // namespace

Result<Resolved> resolve(const LaunchRequest& request, const Firmware& firmware) {
  return Resolver(request, firmware).run();
}

}  // namespace hf::qemu
