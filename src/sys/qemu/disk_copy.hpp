#pragma once
// DiskCopy: the disks of a running QEMU get other images: block jobs of kind mirror, one a disk. Its order of commands,
// and what QEMU says of them. Any thread, one at a time for a VM; every call has a time limit.
//
// A mirror (`blockdev-mirror`, sync full, copy-mode write-blocking, neither auto-finalize nor auto-dismiss) copies all
// that is allocated; the guest's writes go to both images from its begin on. `ready`: they are equal. `job-complete`
// then brings it to `pending`: QEMU has drained the disk, flushed the new image, and lets no request begin (QEMU 7.2
// and 10.0: block/mirror.c drains in mirror_run() and ends that in mirror_exit_common(), which `job-finalize` or
// `job-cancel` calls). `job-finalize` puts the new nodes where the old ones were; `job-cancel` does not.
//
// A disk's nodes are f-, q- and d-<disk> (core/vm/qemu_command), or the same with "_1" at their end: whichever of them
// is not in use is made for the new image. So nodes are found again by whoever comes later, as jobs are by their names.
#include <condition_variable>
#include <map>
#include <mutex>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "port/hypervisor.hpp"
#include "sys/qemu/qmp.hpp"

namespace hf::qemu {

// The disk whose node this is; the name itself where it is none's.
std::string disk_of_node(std::string_view node);

// What QEMU's events say of its jobs. Thread-safe.
class JobNote {
 public:
  void take(const std::string& event, const std::string& data);
  // Waits until all of them are pending. False: one never will be, or the limit has passed.
  bool wait_pending(const std::vector<std::string>& jobs, Duration limit);

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::string> status_;  // as last heard, of those that have not gone
};

class DiskCopy {
 public:
  // `note` hears the events of that monitor. Both must outlive this.
  DiskCopy(QmpClient& monitor, JobNote& note, TaskId id) : monitor_(monitor), note_(note), id_(std::move(id)) {}

  Status begin(const CopyRequest& request);
  Result<CopyState> state();
  // REQUIRES: ready. As Hypervisor::hold_copy.
  Status hold();
  // As Hypervisor::end_copy, and its two halves: the guest's requests go on; what is not needed any more is closed.
  Status end(bool use_new);
  Status let_go(bool use_new);
  Status clean_up(bool use_new);
  // What the images of these disks take on their storage now.
  Result<std::uint64_t> allocated_bytes(const std::vector<std::string>& disks);

 private:
  struct Job;
  Result<std::vector<Job>> jobs();
  Result<nlohmann::json> ask(std::string_view command, const nlohmann::json& arguments);
  Status tell(std::string_view command, const nlohmann::json& arguments);
  Status add(const CopyRequest& request, const CopyRequest::Disk& disk, const std::string& node_in_use);
  // Disk -> its topmost node. REQUIRES: no job.
  Result<std::map<std::string, std::string>> nodes_in_use();
  // Node -> the file it is over.
  Result<std::map<std::string, std::string>> files_by_node();
  // Those of `files` (files_by_node) whose names, after the layer's, are one of `ends`.
  Status remove_nodes(const std::map<std::string, std::string>& files, const std::vector<std::string>& ends);
  // Sends the command to each of the jobs at once. What comes of it, the list of jobs tells.
  void tell_jobs(std::string_view command, const std::vector<Job>& jobs);
  // Until QEMU has forgotten the jobs.
  Status dismiss_jobs();
  std::string job_of(const std::string& disk) const;

  QmpClient& monitor_;
  JobNote& note_;
  const TaskId id_;
};

}  // namespace hf::qemu
