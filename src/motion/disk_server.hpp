#pragma once
// DiskServer: a qemu-nbd at the destination that writes the new image of one disk as the source's QEMU tells it
// (`blockdev-mirror` to an NBD export, as in QEMU's docs/interop/live-block-operations.rst, "non-shared storage"). It
// serves one connection and ends after it. The QEMU that waits for the guest has the image open as well and reads it
// anew before the guest runs. A thread of its own waits for the program's end.
#include <future>
#include <memory>
#include <string>
#include <thread>

#include "base/time.hpp"
#include "motion/messages.hpp"
#include "sys/process/run.hpp"

namespace hf::motion {

class DiskServer {
 public:
  // Returns once it listens at `socket`.
  static Result<std::unique_ptr<DiskServer>> start(const IncomingDisk& disk, const std::string& socket);
  // Killed, if it has not ended. It does not outlive this process either.
  ~DiskServer();

  // Until the source has closed its connection, and the image is closed.
  // safety: without an error nobody writes the image any more.
  Status wait_closed(Duration limit);

 private:
  DiskServer(const IncomingDisk& disk, const std::string& socket);

  const std::string name_;
  std::promise<Result<process::RunOutput>> ended_;
  std::future<Result<process::RunOutput>> end_;
  std::jthread thread_;  // last: it uses the above
};

}  // namespace hf::motion
