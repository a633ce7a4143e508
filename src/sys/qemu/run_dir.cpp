#include "sys/qemu/run_dir.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/log.hpp"
#include "sys/process/small_file.hpp"
#include "sys/process/unique_fd.hpp"

namespace hf::qemu {
namespace {
using nlohmann::json;
constexpr int kFormat = 1;
constexpr std::size_t kOlderLogMax = 1 << 20;
constexpr std::size_t kKeptLogMax = 64 * 1024;
}  // namespace

std::string encode(const LaunchRecord& record) {
  const json text = {{"format", kFormat},
                     {"vm", record.vm.text},
                     {"epoch", record.epoch.number},
                     {"pid", record.pid},
                     {"start_time", record.start_time},
                     {"accelerator", record.accelerator},
                     {"memory_tracker", record.memory_tracker},
                     {"command", record.command},
                     {"motion", record.motion.text}};
  return text.dump(1, ' ', false, json::error_handler_t::replace) + "\n";
}

Result<LaunchRecord> decode_launch_record(const std::string& text) {
  try {
    const json object = json::parse(text);
    if (object.at("format") != kFormat)
      return Error{Code::corrupt, "The launch record has an unknown format."};
    LaunchRecord record;
    record.vm = VmId(object.at("vm").get<std::string>());
    record.epoch = Epoch{object.at("epoch").get<std::uint64_t>()};
    record.pid = object.at("pid").get<int>();
    record.start_time = object.at("start_time").get<std::uint64_t>();
    record.accelerator = object.at("accelerator").get<std::string>();
    record.memory_tracker = object.at("memory_tracker").get<std::string>();
    record.command = object.at("command").get<std::vector<std::string>>();
    record.motion = TaskId(object.value("motion", ""));  // records before vMotion have none
    if (record.pid <= 0) return Error{Code::corrupt, "The launch record names no process."};
    return record;
  } catch (const json::exception& problem) {
    return Error{Code::corrupt, std::string("The launch record cannot be read: ") + problem.what() + "."};
  }
}

Status create_hold_page(const std::string& path, gid_t group) {
  const process::UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0640));
  if (!fd) return from_errno("Cannot create " + path, errno);
  if (::fchown(fd.get(), 0, group) < 0) return from_errno("Cannot give " + path + " to QEMU's group", errno);
  if (::ftruncate(fd.get(), kHoldPageBytes) < 0) return from_errno("Cannot size " + path, errno);
  return {};
}

Status trim_log(const std::string& path, std::size_t bytes_max) {
  struct stat status{};
  if (::stat(path.c_str(), &status) < 0 || static_cast<std::size_t>(status.st_size) <= bytes_max) return {};
  TRY_ASSIGN(const std::string end, process::read_tail(path, kOlderLogMax));
  TRY(process::replace_file(path + ".1", end, 0640));
  // QEMU's descriptor is in append mode: its next write begins at 0.
  if (::truncate(path.c_str(), 0) < 0) return from_errno("Cannot truncate " + path, errno);
  return {};
}

Result<std::string> log_tail(const std::string& path, std::size_t bytes_max) {
  TRY_ASSIGN(std::string tail, process::read_tail(path, bytes_max));
  if (tail.size() == bytes_max) return tail;
  const auto older = process::read_tail(path + ".1", bytes_max - tail.size());
  return older ? *older + tail : tail;
}

void keep_logs(const RunDir& dir, const std::string& log_dir, const VmId& vm) {
  if (log_dir.empty()) return;
  std::error_code ignored;  // the write below says it
  std::filesystem::create_directories(log_dir, ignored);
  const auto keep = [&](const std::string& from, const std::string& suffix) {
    const auto tail = log_tail(from, kKeptLogMax);
    if (!tail) return;
    if (const Status kept = process::replace_file(log_dir + "/" + vm.text + suffix, *tail, 0640);
        !kept.ok()) {
      log(Level::warn, "a VM's log is not kept", {{"vm", vm.text}, {"why", kept.error().what}});
    }
  };
  keep(dir.qemu_log(), "-qemu.log");
  keep(dir.console_log(), "-console.log");
}

}  // namespace hf::qemu
