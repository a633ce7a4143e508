#pragma once
// RunDir: the run directory of one VM, <run>/vms/<vm>/, on tmpfs. All that is needed to find its QEMU again
// stands in it (doc/formats.md: "Run directory", "Hold page"). Values and stateless functions; who may write
// is the caller's business.
#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.hpp"
#include "base/result.hpp"

namespace hf::qemu {

struct RunDir {
  std::string path;
  std::string qmp_socket() const { return path + "/qmp.sock"; }
  std::string engine_socket() const { return path + "/engine.sock"; }
  std::string migration_socket() const { return path + "/ram.sock"; }  // QEMU's own migration, either side
  // Of a disk that goes along with a motion: to where the source's QEMU writes it, and where its server listens.
  std::string disk_socket(const std::string& disk) const { return path + "/disk-" + disk + ".sock"; }
  std::string console_socket() const { return path + "/console.sock"; }
  std::string memory_socket() const { return path + "/memory.sock"; }
  std::string agent_socket() const { return path + "/agent.sock"; }
  std::string console_log() const { return path + "/console.log"; }
  std::string qemu_log() const { return path + "/qemu.log"; }
  std::string hold_page() const { return path + "/hold.page"; }
  std::string launch_record() const { return path + "/launch.json"; }
};

// Written before QEMU starts; a run directory without it never held a running guest.
struct LaunchRecord {
  VmId vm;
  Epoch epoch;
  int pid = 0;
  std::uint64_t start_time = 0;  // process/identity.hpp
  std::string accelerator;
  std::string memory_tracker;  // empty until QEMU answers
  std::vector<std::string> command;
  TaskId motion;  // that it was prepared for; empty: it booted
  bool operator==(const LaunchRecord&) const = default;
};
std::string encode(const LaunchRecord& record);
Result<LaunchRecord> decode_launch_record(const std::string& text);

constexpr std::size_t kHoldPageBytes = 4096;
// safety: a new page's deadline is 0: QEMU's disk writes are held until the guard has admitted the VM.
Status create_hold_page(const std::string& path, gid_t group);

// Keeps a log that QEMU appends to below `bytes_max` and a copy of its predecessor, <path>.1, of at most 1
// MiB. What QEMU writes between the copy and the truncation is lost.
Status trim_log(const std::string& path, std::size_t bytes_max);
// The last bytes of a log and its predecessor together.
Result<std::string> log_tail(const std::string& path, std::size_t bytes_max);
// Copies the ends of QEMU's and the console's log to <log_dir>/<vm>-qemu.log and -console.log, replacing the
// older ones.
void keep_logs(const RunDir& dir, const std::string& log_dir, const VmId& vm);

}  // namespace hf::qemu
