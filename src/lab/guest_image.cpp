#include "lab/guest_image.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <map>
#include <sstream>

#include "lab/command.hpp"
#include "lab/files.hpp"
#include "lab/guest_blob.hpp"

namespace hf::lab {
namespace {

namespace fs = std::filesystem;

constexpr int kRecipe = 2;  // raised when the way of building changes, so that kept images are built anew
constexpr std::size_t kGuestFileMax = 64 << 20;
constexpr const char* kKernelPackage = "linux-image-cloud-amd64";
// Wanted in the guest; their dependencies are read from the modules. One that is not there is built in.
constexpr const char* kModules[] = {"virtio_pci", "virtio_blk", "virtio_net", "virtio_console",
                                    "virtio_rng", "evdev",      "button"};
constexpr const char* kCmdline =
    "console=ttyS0 quiet panic=-1 mitigations=off nokaslr no_timer_check rodata=off lsm=none "
    "cryptomgr.notests";

std::string with_underscores(std::string name) {
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

// "linux-image-6.1.0-56-cloud-amd64", which the package above stands for today.
Result<std::string> kernel_package() {
  TRY_ASSIGN(const std::string text, run({"apt-cache", "depends", kKernelPackage}));
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const auto at = line.find("Depends: linux-image-");
    if (at != std::string::npos) return line.substr(at + 9);
  }
  return Error{Code::failed,
               fmt::format("apt knows no kernel behind {}: run `apt-get update`.", kKernelPackage)};
}

Result<std::string> package_file(const std::string& folder, const std::string& package) {
  const auto find = [&]() -> std::string {
    for (const auto& name : names_in(folder)) {
      if (name.starts_with(package + "_") && name.ends_with(".deb")) return folder + "/" + name;
    }
    return {};
  };
  if (find().empty()) {
    const auto done =
        run({"env", "-C", folder, "apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package});
    if (!done) return because("Cannot download " + package + " for the test guest", done.error());
  }
  if (const std::string file = find(); !file.empty()) return file;
  return Error{Code::failed, "apt-get downloaded no file for " + package + "."};
}

// What was unpacked, by normalised module name; the kernel; busybox.
struct Unpacked {
  std::string kernel;
  std::string busybox;
  std::map<std::string, std::string> modules;
};

Unpacked look_through(const std::string& folder) {
  Unpacked found;
  std::error_code error;
  for (fs::recursive_directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    const std::string name = at->path().filename().string();
    const std::string path = at->path().string();
    if (name.starts_with("vmlinuz-") && at->is_regular_file()) found.kernel = path;
    if (name == "busybox" && path.ends_with("bin/busybox") && at->is_regular_file()) found.busybox = path;
    const auto dot = name.find(".ko");
    if (dot != std::string::npos) found.modules[with_underscores(name.substr(0, dot))] = path;
  }
  return found;
}

Result<std::string> module_content(const std::string& path) {
  if (path.ends_with(".xz")) return run({"xz", "-dc", path});
  if (path.ends_with(".zst")) return run({"zstd", "-dcq", path});
  return process::read_small_file(path, kGuestFileMax);
}

// Checking a signature takes longer under emulation than the rest of loading. It is the end of the file: the
// signature, a header of 12 bytes whose last 4 are its length (big endian), a magic line.
void strip_signature(std::string& module) {
  constexpr std::string_view kMagic = "~Module signature appended~\n";
  constexpr std::size_t kHeader = 12;
  if (!module.ends_with(kMagic) || module.size() < kMagic.size() + kHeader) return;
  std::size_t length = 0;
  for (std::size_t i = 4; i > 0; --i) {
    length = length << 8 | static_cast<unsigned char>(module[module.size() - kMagic.size() - i]);
  }
  if (length < module.size() - kMagic.size() - kHeader) {
    module.resize(module.size() - kMagic.size() - kHeader - length);
  }
}

// Appends the module after its dependencies, each once.
Status add_module(const Unpacked& unpacked, const std::string& name, std::vector<ArchiveFile>& files,
                  std::string& order) {
  const auto module = unpacked.modules.find(name);
  const std::string path = "modules/" + name + ".ko";
  const bool is_there =
      std::any_of(files.begin(), files.end(), [&](const auto& file) { return file.path == path; });
  if (module == unpacked.modules.end() || is_there) return {};
  TRY_ASSIGN(std::string content, module_content(module->second));
  for (const auto& dependency : module_dependencies(content))
    TRY(add_module(unpacked, dependency, files, order));
  strip_signature(content);
  files.push_back({.path = path, .content = std::move(content)});
  order += name + ".ko\n";
  return {};
}

Result<std::string> make_initrd(const Unpacked& unpacked) {
  std::vector<ArchiveFile> files;
  files.push_back({.path = "modules", .content = {}, .mode = 040755});
  std::string order;
  for (const char* name : kModules) TRY(add_module(unpacked, name, files, order));
  files.push_back({.path = "modules/order", .content = order});
  TRY_ASSIGN(std::string busybox, process::read_small_file(unpacked.busybox, kGuestFileMax));
  files.push_back({.path = "busybox", .content = std::move(busybox), .mode = 0100755});
  files.push_back({.path = "init", .content = std::string(guest_init()), .mode = 0100755});
  return cpio_archive(files);
}

Status build(const std::string& folder, const std::function<void(const std::string&)>& progress) {
  const std::string packages = folder + "/packages";
  const std::string unpacked_folder = folder + "/unpacked";
  TRY(process::make_folder(packages));
  TRY(remove_folder(unpacked_folder));
  TRY(process::make_folder(unpacked_folder));
  TRY_ASSIGN(const std::string kernel, kernel_package());
  for (const std::string& package : {kernel, std::string("busybox-static")}) {
    progress(package);
    TRY_ASSIGN(const std::string file, package_file(packages, package));
    TRY(run({"dpkg", "-x", file, unpacked_folder}));
  }
  progress("initrd");
  const Unpacked unpacked = look_through(unpacked_folder);
  if (unpacked.kernel.empty() || unpacked.busybox.empty()) {
    return Error{Code::failed, "The packages of the test guest hold no kernel or no busybox. Remove " +
                                   packages + " and try again."};
  }
  TRY_ASSIGN(const std::string initrd, make_initrd(unpacked));
  TRY(process::replace_file(folder + "/initrd", initrd, 0644));
  std::error_code error;
  fs::copy_file(unpacked.kernel, folder + "/vmlinuz", fs::copy_options::overwrite_existing, error);
  if (error) return from_errno("Cannot copy the kernel", error.value());
  return remove_folder(unpacked_folder);
}

}  // namespace

std::vector<std::string> module_dependencies(const std::string& module) {
  std::vector<std::string> names;
  const std::string key("\0depends=", 9);
  const auto at = module.find(key);
  if (at == std::string::npos) return names;
  std::istringstream list(std::string(module.c_str() + at + key.size()));
  for (std::string name; std::getline(list, name, ',');) names.push_back(with_underscores(name));
  return names;
}

std::string cpio_archive(const std::vector<ArchiveFile>& files) {
  std::string archive;
  const auto pad = [&archive] { archive.append((4 - archive.size() % 4) % 4, '\0'); };
  unsigned inode = 1;
  const auto add = [&](const ArchiveFile& file) {
    archive +=
        fmt::format("070701{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}",
                    inode++, file.mode, 0, 0, 1, 0, file.content.size(), 0, 0, 0, 0, file.path.size() + 1, 0);
    archive += file.path;
    archive += '\0';
    pad();
    archive += file.content;
    pad();
  };
  for (const auto& file : files) add(file);
  add({.path = "TRAILER!!!", .content = {}, .mode = 0});
  return archive;
}

Result<GuestImage> guest_image(const std::string& folder,
                               const std::function<void(const std::string&)>& progress) {
  TRY(process::make_folder(folder));
  const Fd lock(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!lock || ::flock(lock.get(), LOCK_EX) != 0) return from_errno("Cannot lock " + folder, errno);
  // Written last: an image of another init, or a half-made one, is made anew.
  const std::string stamp = fmt::format("{} {:016x}\n", kRecipe, std::hash<std::string_view>{}(guest_init()));
  const auto present = process::read_small_file(folder + "/stamp");
  if (!present || *present != stamp) {
    TRY(build(folder, progress));
    TRY(process::replace_file(folder + "/stamp", stamp, 0644));
  }
  return GuestImage{.kernel = folder + "/vmlinuz", .initrd = folder + "/initrd", .cmdline = kCmdline};
}

}  // namespace hf::lab
