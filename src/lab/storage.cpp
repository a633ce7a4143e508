#include "lab/storage.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <thread>

#include "lab/cgroup.hpp"
#include "lab/command.hpp"
#include "lab/files.hpp"

namespace hf::lab::storage {
namespace {

constexpr auto kMountTimeout = std::chrono::seconds(10);

Status mount_at(const char* source, const std::string& target, const char* type, unsigned long flags,
                const char* options = nullptr) {
  if (::mount(source, target.c_str(), type, flags, options) == 0) return {};
  return from_errno("Cannot mount " + target, errno);
}

// /sys shows the network devices of the namespace it was mounted in; only that part is replaced, since the
// cgroups are mounted below /sys as well.
Status show_own_network_devices(const std::string& scratch) {
  TRY(mount_at("sysfs", scratch, "sysfs", MS_RDONLY));
  for (const std::string part : {"/class/net", "/devices/virtual/net"}) {
    TRY(mount_at((scratch + part).c_str(), "/sys" + part, nullptr, MS_BIND));
  }
  ::umount2(scratch.c_str(), MNT_DETACH);
  return {};
}

// In a child that is in the host's network namespace.
Status make_namespace(const Layout& layout, const std::string& host) {
  if (::unshare(CLONE_NEWNS) != 0) return from_errno("Cannot make a mount namespace", errno);
  // Slave: what the machine unmounts later goes here too, nothing goes the other way.
  TRY(mount_at("none", "/", nullptr, MS_REC | MS_SLAVE));
  // Else this copy would keep other people's network namespaces alive.
  ::umount2("/run/netns", MNT_DETACH);
  TRY(show_own_network_devices(layout.run_dir() + "/scratch"));
  const std::string local(kLocalDatastore);
  const std::string source = layout.host_dir(host) + "/datastores/" + local;
  return mount_at(source.c_str(), layout.mount_path(local), nullptr, MS_BIND);
}

// Reads of mountinfo of a process are the only view into its namespace that cannot hang on a dead mount.
bool is_mounted(int pid, const std::string& target) {
  const auto text = process::read_small_file(fmt::format("/proc/{}/mountinfo", pid), kMountinfoMax);
  return text.ok() && text->find(" " + target + " ") != std::string::npos;
}

bool is_alive(int pid) {
  int status = 0;
  return ::waitpid(pid, &status, WNOHANG) == 0;
}

// bindfs of FUSE 2 takes the library's option, later versions have one of their own.
std::vector<std::string> uncached_options() {
  const auto help = run({"bindfs", "--help"});
  if (help.ok() && help->find("--direct-io") != std::string::npos) return {"--direct-io"};
  const auto version = run({"bindfs", "--fuse-version"});
  if (version.ok() && version->find(" 2.") != std::string::npos) return {"-o", "direct_io"};
  return {};
}

}  // namespace

Status build_run_dir(const Layout& layout, const LabConfig& config) {
  TRY(process::make_folder(layout.run_dir()));
  TRY(mount_at("holdfast-lab", layout.run_dir(), "tmpfs", MS_NOSUID | MS_NODEV, "mode=755"));
  // A namespace's file can only be bound where the mount does not propagate.
  TRY(mount_at("none", layout.run_dir(), nullptr, MS_PRIVATE));
  TRY(process::make_folder(layout.run_dir() + "/ns"));
  TRY(process::make_folder(layout.run_dir() + "/scratch"));
  TRY(process::make_folder(layout.mount_path(std::string(kLocalDatastore))));
  for (const auto& datastore : config.datastores) TRY(process::make_folder(layout.mount_path(datastore)));
  return {};
}

Status build_host(const Layout& layout, const std::string& host) {
  const std::string holder = layout.mount_namespace(host);
  TRY(process::replace_file(holder, "", 0644));
  std::array<int, 2> made{};
  std::array<int, 2> held{};
  if (::pipe2(made.data(), O_CLOEXEC) != 0 || ::pipe2(held.data(), O_CLOEXEC) != 0) {
    return from_errno("Cannot make a pipe", errno);
  }
  const Fd made_reader(made[0]);
  Fd made_writer(made[1]);
  Fd held_reader(held[0]);
  Fd held_writer(held[1]);
  // run_in cannot be used: the namespace must be bound while its first process lives.
  const pid_t pid = ::fork();
  if (pid < 0) return from_errno("Cannot fork", errno);
  if (pid == 0) {
    held_writer.reset(-1);
    Status done =
        enter(Place{.network = Layout::net_file(layout.net_name(host)), .mounts = {}, .cgroup = {}});
    if (done) done = make_namespace(layout, host);
    const std::string text = done ? "" : done.error().what;
    [[maybe_unused]] auto written = ::write(made_writer.get(), text.data(), text.size());
    made_writer.reset(-1);
    char byte = 0;
    [[maybe_unused]] auto count = ::read(held_reader.get(), &byte, 1);  // until the parent has closed its end
    ::_exit(0);
  }
  made_writer.reset(-1);
  std::array<char, 512> text{};
  const ssize_t count = ::read(made_reader.get(), text.data(), text.size());
  Status done;
  if (count > 0) {
    done = Error{Code::failed, std::string(text.data(), static_cast<std::size_t>(count))};
  } else {
    done = mount_at(fmt::format("/proc/{}/ns/mnt", pid).c_str(), holder, nullptr, MS_BIND);
  }
  held_writer.reset(-1);
  ::waitpid(pid, nullptr, 0);
  return done;
}

Status remove_run_dir(const Layout& layout) {
  for (const auto& host : names_in(layout.run_dir() + "/ns")) {
    ::umount2(layout.mount_namespace(host).c_str(), MNT_DETACH);
  }
  if (::umount2(layout.run_dir().c_str(), MNT_DETACH) != 0 && errno != EINVAL && errno != ENOENT) {
    return from_errno("Cannot unmount " + layout.run_dir(), errno);
  }
  TRY(remove_folder(layout.run_dir()));
  ::rmdir(std::string(Layout::kRunRoot).c_str());
  return {};
}

Path path_state(const Layout& layout, const std::string& host, const std::string& datastore) {
  const std::string group = layout.storage_cgroup(host, datastore);
  if (!cgroup::is_populated(group)) return Path::pdl;
  return cgroup::is_frozen(group) ? Path::apd : Path::healthy;
}

Status mount(const Layout& layout, const std::string& host, const std::string& datastore) {
  const std::string group = layout.storage_cgroup(host, datastore);
  TRY(cgroup::make(group));
  TRY(cgroup::set_frozen(group, false));
  if (cgroup::is_populated(group)) return {};
  const std::string target = layout.mount_path(datastore);
  const Place inside{.network = {}, .mounts = layout.mount_namespace(host), .cgroup = {}};
  TRY(run_in(inside, [&target] {
    ::umount2(target.c_str(), MNT_DETACH);  // what a killed bindfs left; there may be none
    return Status();
  }));
  std::vector<std::string> argv = {"bindfs", "-f", "--multithreaded", "-o",
                                   "attr_timeout=0,entry_timeout=0,negative_timeout=0"};
  for (const auto& option : uncached_options()) argv.push_back(option);
  argv.push_back(layout.datastore_source(datastore));
  argv.push_back(target);
  const Place place{.network = {}, .mounts = layout.mount_namespace(host), .cgroup = group};
  TRY_ASSIGN(const int pid, start(argv, place, layout.log_file(host, "datastore-" + datastore)));
  const auto end = std::chrono::steady_clock::now() + kMountTimeout;
  while (is_alive(pid) && std::chrono::steady_clock::now() < end) {
    if (is_mounted(pid, target)) return {};
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return Error{Code::failed, fmt::format("bindfs did not mount {} on {}. Its words are in {}.", datastore,
                                         host, layout.log_file(host, "datastore-" + datastore))};
}

Status set_apd(const Layout& layout, const std::string& host, const std::string& datastore) {
  return cgroup::set_frozen(layout.storage_cgroup(host, datastore), true);
}

Status set_pdl(const Layout& layout, const std::string& host, const std::string& datastore) {
  return cgroup::kill(layout.storage_cgroup(host, datastore));
}

}  // namespace hf::lab::storage
