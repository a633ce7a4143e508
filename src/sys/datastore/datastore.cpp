#include "sys/datastore/datastore.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string_view>

#include "base/ensure.hpp"
#include "core/ha/slot.hpp"

namespace hf::datastore {
namespace {
constexpr std::size_t kTextFileMax = 1 << 20;  // larger is no file of ours
constexpr std::string_view kOwnerSuffix = ".owner";

class File {
 public:
  explicit File(int fd) : fd_(fd) {}
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }
  File(File&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  File& operator=(File&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  int fd() const { return fd_; }

 private:
  int fd_;
};

std::string folder_of(const std::string& mount) { return mount + "/.holdfast"; }
std::string marker_path(const std::string& mount) { return folder_of(mount) + "/datastore.json"; }

// The text goes into a path: a name that is a path itself must not lead elsewhere.
Result<std::string> file_name(const std::string& text) {
  if (text.empty() || text[0] == '.' || text.find('/') != std::string::npos) {
    return Error{Code::invalid, "\"" + text + "\" cannot be a file's name on a datastore."};
  }
  return text;
}
Result<std::string> slot_path(const std::string& mount, const HostId& host) {
  TRY_ASSIGN(const std::string name, file_name(host.text));
  return folder_of(mount) + "/slots/" + name;
}
Result<std::string> owner_path(const std::string& mount, const VmId& vm) {
  TRY_ASSIGN(const std::string name, file_name(vm.text));
  return folder_of(mount) + "/vms/" + name + std::string(kOwnerSuffix);
}

Result<File> open_file(const std::string& path, int flags, mode_t mode = 0) {
  File file(::open(path.c_str(), flags | O_CLOEXEC, mode));
  if (file.fd() < 0) return from_errno("Cannot open " + path, errno);
  return file;
}

// Past the page cache where the file system can; `fallback_flags` where it refuses O_DIRECT.
Result<File> open_direct(const std::string& path, int flags) {
  File file(::open(path.c_str(), flags | O_DIRECT | O_CLOEXEC));
  if (file.fd() < 0 && errno == EINVAL) file = File(::open(path.c_str(), flags | O_CLOEXEC));
  if (file.fd() < 0) return from_errno("Cannot open " + path, errno);
  return file;
}

Result<std::string> read_text(const std::string& path) {
  TRY_ASSIGN(const File file, open_file(path, O_RDONLY));
  std::string text;
  std::string chunk(4096, '\0');
  while (text.size() <= kTextFileMax) {
    const ssize_t n = ::read(file.fd(), chunk.data(), chunk.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return from_errno("Cannot read " + path, errno);
    if (n == 0) return text;
    text.append(chunk, 0, static_cast<std::size_t>(n));
  }
  return Error{Code::corrupt, path + " is too large to be a file of Holdfast."};
}

Status write_all(const File& file, std::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(file.fd(), bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return from_errno("Cannot write " + path, errno);
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return {};
}

Status sync_folder(const std::string& folder) {
  TRY_ASSIGN(const File file, open_file(folder, O_RDONLY | O_DIRECTORY));
  if (::fsync(file.fd()) != 0) return from_errno("Cannot make " + folder + " durable", errno);
  return {};
}

Status write_durably(const std::string& path, const std::string& text) {
  TRY_ASSIGN(const File file, open_file(path, O_WRONLY | O_CREAT | O_TRUNC, 0644));
  TRY(write_all(file, text, path));
  if (::fsync(file.fd()) != 0) return from_errno("Cannot make " + path + " durable", errno);
  return {};
}

// After it returns, a reader finds the whole new text or, if it failed, the whole old one, also after a power
// loss.
Status replace_text(const std::string& folder, const std::string& path, const std::string& text) {
  const std::string temporary = path + ".new";
  if (const Status written = write_durably(temporary, text); !written.ok()) {
    ::unlink(temporary.c_str());  // if it is there; else it is overwritten next time
    if (written.code() != Code::no_room) return written;
    return Error{Code::no_room,
                 "The datastore of " + path + " is full. Free some space on it and try again."};
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) return from_errno("Cannot rename " + temporary, errno);
  return sync_folder(folder);
}

struct FreeAligned {
  void operator()(char* block) const { std::free(block); }
};
using Block = std::unique_ptr<char, FreeAligned>;
Block aligned_block() {
  Block block(static_cast<char*>(std::aligned_alloc(ha::kSlotBytes, ha::kSlotBytes)));
  ENSURE(block != nullptr, "4 KiB of memory are needed.");
  return block;
}

Error damaged_owner(const std::string& path, const Error& cause) {
  return Error{
      cause.code,
      fmt::format("{} Make sure that no other host runs the VM, then delete {} and start the VM again.",
                  cause.what, path)};
}
}  // namespace

Status make_marker(const std::string& mount, const ha::DatastoreMarker& marker) {
  std::error_code problem;
  if (!std::filesystem::is_directory(mount, problem)) {
    return Error{Code::not_found, mount + " is not a folder; mount the datastore there first."};
  }
  if (std::filesystem::exists(marker_path(mount), problem)) {
    return Error{Code::exists, mount + " is a Holdfast datastore already."};
  }
  for (const char* folder : {"/slots", "/vms"}) {
    std::filesystem::create_directories(folder_of(mount) + folder, problem);
    if (problem) return from_errno("Cannot make " + folder_of(mount) + folder, problem.value());
  }
  TRY(replace_text(folder_of(mount), marker_path(mount), encode_marker(marker)));
  return sync_folder(mount);
}

Result<ha::DatastoreMarker> read_marker(const std::string& mount) {
  auto text = read_text(marker_path(mount));
  if (!text.ok() && text.code() == Code::not_found) {
    return Error{Code::not_found, "No Holdfast datastore is mounted at " + mount +
                                      "; mount it, or add it with `holdfast datastore add`."};
  }
  if (!text.ok()) return because("The datastore at " + mount + " cannot be used", text.error());
  auto marker = ha::decode_marker(*text);
  if (!marker.ok()) return because("The datastore at " + mount + " cannot be used", marker.error());
  return marker;
}

Status check_marker(const std::string& mount, const DatastoreId& id) {
  TRY_ASSIGN(const ha::DatastoreMarker marker, read_marker(mount));
  if (marker.id == id) return {};
  return Error{Code::conflict,
               fmt::format("The datastore at {} is {} ({}), not {}; mount the right one there.", mount,
                           marker.name, marker.id.text, id.text)};
}

Status make_slot(const std::string& mount, const DatastoreId& id, const HostId& host) {
  TRY(check_marker(mount, id));
  TRY_ASSIGN(const std::string path, slot_path(mount, host));
  TRY_ASSIGN(const File file, open_file(path, O_WRONLY | O_CREAT, 0644));
  struct stat info{};
  if (::fstat(file.fd(), &info) != 0) return from_errno("Cannot examine " + path, errno);
  if (info.st_size >= static_cast<off_t>(ha::kSlotBytes)) return {};
  if (::ftruncate(file.fd(), static_cast<off_t>(ha::kSlotBytes)) != 0 || ::fsync(file.fd()) != 0) {
    return from_errno("Cannot make " + path, errno);
  }
  return sync_folder(folder_of(mount) + "/slots");
}

Status write_slot(const std::string& mount, const DatastoreId& id, const HostId& host,
                  const std::string& bytes) {
  ENSURE(bytes.size() == ha::kSlotBytes, "A slot is one block.");
  TRY(check_marker(mount, id));
  TRY_ASSIGN(const std::string path, slot_path(mount, host));
  TRY_ASSIGN(const File file, open_direct(path, O_WRONLY | O_DSYNC));
  const Block block = aligned_block();
  std::memcpy(block.get(), bytes.data(), bytes.size());
  const ssize_t n = ::pwrite(file.fd(), block.get(), ha::kSlotBytes, 0);
  if (n < 0) return from_errno("Cannot write " + path, errno);
  if (n != static_cast<ssize_t>(ha::kSlotBytes))
    return Error{Code::no_room, "Only a part of " + path + " was written."};
  // Where O_DSYNC is not kept (some FUSE file systems), this is what makes the heartbeat visible to others.
  if (::fdatasync(file.fd()) != 0) return from_errno("Cannot make " + path + " durable", errno);
  return {};
}

Result<std::string> read_slot(const std::string& mount, const HostId& host) {
  TRY_ASSIGN(const std::string path, slot_path(mount, host));
  TRY_ASSIGN(const File file, open_direct(path, O_RDONLY));
  // For a file system that refused O_DIRECT: drop what the cache has of it.
  (void)::posix_fadvise(file.fd(), 0, 0, POSIX_FADV_DONTNEED);  // a hint; tmpfs has nothing to drop
  const Block block = aligned_block();
  const ssize_t n = ::pread(file.fd(), block.get(), ha::kSlotBytes, 0);
  if (n < 0) return from_errno("Cannot read " + path, errno);
  return std::string(block.get(), static_cast<std::size_t>(n));
}

Result<ha::OwnerFile> read_owner(const std::string& mount, const VmId& vm) {
  TRY_ASSIGN(const std::string path, owner_path(mount, vm));
  TRY_ASSIGN(const std::string text, read_text(path));
  auto owner = ha::decode_owner_file(text);
  if (!owner.ok()) return damaged_owner(path, owner.error());
  if (owner->vm != vm) return damaged_owner(path, Error{Code::corrupt, "The owner file is another VM's."});
  return owner;
}

Status confirm_owner(const std::string& mount, const ha::OwnerFile& owner) {
  TRY_ASSIGN(const std::string path, owner_path(mount, owner.vm));
  const auto standing = read_owner(mount, owner.vm);
  // safety (one owner): only "there is none" and "an older one" give the right; an unreadable file does not.
  if (!standing.ok() && standing.code() != Code::not_found) return standing.error();
  if (standing.ok()) TRY(ha::may_replace(*standing, owner));
  return replace_text(folder_of(mount) + "/vms", path, encode_owner_file(owner));
}

Status erase_owner(const std::string& mount, const VmId& vm, Epoch epoch) {
  TRY_ASSIGN(const std::string path, owner_path(mount, vm));
  const auto standing = read_owner(mount, vm);
  if (!standing.ok()) return standing.code() == Code::not_found ? Status{} : Status{standing.error()};
  if (standing->epoch > epoch) {
    return Error{Code::conflict, fmt::format("VM {} has a newer owner on the datastore: host {}, epoch {}.",
                                             vm.text, standing->host.text, standing->epoch.number)};
  }
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return from_errno("Cannot remove " + path, errno);
  return sync_folder(folder_of(mount) + "/vms");
}

Result<std::vector<VmId>> list_owners(const std::string& mount) {
  std::vector<VmId> found;
  std::error_code problem;
  std::filesystem::directory_iterator entries(folder_of(mount) + "/vms", problem), end;
  for (; !problem && entries != end; entries.increment(problem)) {
    const std::string name = entries->path().filename().string();
    if (name.ends_with(kOwnerSuffix)) found.emplace_back(name.substr(0, name.size() - kOwnerSuffix.size()));
  }
  if (problem) return from_errno("Cannot list the owner files at " + mount, problem.value());
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace hf::datastore
