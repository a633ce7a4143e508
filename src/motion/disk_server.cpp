#include "motion/disk_server.hpp"

#include <pthread.h>
#include <unistd.h>

#include <filesystem>

#include "sys/image/image.hpp"
#include "sys/process/clock.hpp"

namespace hf::motion {
namespace {
constexpr Duration kStartLimit = 10s;
constexpr Duration kLook = 2ms;

std::vector<std::string> command_of(const IncomingDisk& disk, const std::string& socket) {
  const std::string folder = std::filesystem::path(disk.path).parent_path();
  std::string file = disk.path;
  for (std::size_t at = 0; (at = file.find(',', at)) != std::string::npos; at += 2) file.insert(at, ",");
  return {"setpriv", "--pdeathsig", "KILL", "--",  // it goes with this process, whatever ends that
          "qemu-nbd", "--socket=" + socket, "--export-name=" + disk.name, "--shared=1", "--aio=threads",
          std::string("--cache=") + (image::supports_direct_io(folder) ? "none" : "writeback"), "--discard=unmap",
          "--detect-zeroes=unmap", "--image-opts",
          "driver=" + disk.format + ",file.driver=file,file.locking=off,file.filename=" + file};
}
}  // namespace

DiskServer::DiskServer(const IncomingDisk& disk, const std::string& socket)
    : name_(disk.name), end_(ended_.get_future()) {
  thread_ = std::jthread([this, command = command_of(disk, socket)](const std::stop_token& stop) {
    ::pthread_setname_np(::pthread_self(), "hf-nbd");
    process::RunOptions options;
    options.timeout = Duration(0);
    options.stop = stop;
    ended_.set_value(process::run_tool(command, options));
  });
}

DiskServer::~DiskServer() = default;

Result<std::unique_ptr<DiskServer>> DiskServer::start(const IncomingDisk& disk, const std::string& socket) {
  if (::unlink(socket.c_str()) < 0 && errno != ENOENT) return from_errno("Cannot remove " + socket, errno);
  std::unique_ptr<DiskServer> server(new DiskServer(disk, socket));
  const Instant deadline = sys::boot_now() + kStartLimit;
  // It makes its socket last.
  while (::access(socket.c_str(), F_OK) < 0) {
    if (server->end_.wait_for(kLook) == std::future_status::ready) {
      const Status ended = server->wait_closed(0s);
      return ended.ok() ? Error{Code::failed, "The server of disk " + disk.name + " ended at once."} : ended.error();
    }
    if (sys::boot_now() > deadline) {
      return Error{Code::timed_out, "The server of disk " + disk.name + " did not begin to listen."};
    }
  }
  return server;
}

Status DiskServer::wait_closed(Duration limit) {
  if (end_.wait_for(limit) != std::future_status::ready) {
    return Error{Code::timed_out, "The source did not close disk " + name_ + " in time."};
  }
  const auto ended = end_.get();
  if (!ended.ok()) return because("The server of disk " + name_, ended.error());
  if (ended->ok()) return {};
  return Error{Code::failed, "The server of disk " + name_ + " failed: " + ended->complaint()};
}

}  // namespace hf::motion
