#include "sys/qemu/disk_copy.hpp"

#include <fcntl.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/log.hpp"
#include "sys/process/unique_fd.hpp"

namespace hf::qemu {
namespace {
using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr Duration kCommandLimit = 5s;
constexpr Duration kHeldLimit = 2s;
constexpr Duration kEndLimit = 10s;
constexpr Duration kLook = 1ms;
constexpr std::string_view kOther = "_1";  // no name of a disk has a "_"
constexpr std::string_view kFilter = "_m";  // of the job's own node, above both
constexpr std::string_view kLayers[] = {"d-", "q-", "f-"};  // top to bottom

std::string text_at(const json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

std::uint64_t number_at(const json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
}

bool takes_direct_io(const std::string& path) {
  return static_cast<bool>(process::UniqueFd(::open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC)));
}

// What every node of the new image's names end in.
std::string other_suffix(std::string_view node_in_use) {
  return node_in_use.ends_with(kOther) ? std::string() : std::string(kOther);
}

bool is_one_of(const std::string& status, std::initializer_list<std::string_view> states) {
  return std::find(states.begin(), states.end(), status) != states.end();
}

// Code::failed is kept for a guest that uses the wrong images, which costs it its life.
Error not_yet(const Error& error) { return {error.code == Code::failed ? Code::conflict : error.code, error.what}; }
}  // namespace

std::string disk_of_node(std::string_view node) {
  for (const auto layer : kLayers) {
    if (!node.starts_with(layer)) continue;
    node.remove_prefix(layer.size());
    break;
  }
  if (node.ends_with(kOther) || node.ends_with(kFilter)) node.remove_suffix(kOther.size());
  return std::string(node);
}

void JobNote::take(const std::string& event, const std::string& data) {
  if (event != "JOB_STATUS_CHANGE") return;
  const json object = json::parse(data, nullptr, false);
  if (!object.is_object()) return;
  const std::string job = text_at(object, "id"), status = text_at(object, "status");
  const std::lock_guard lock(mutex_);
  if (status == "null") status_.erase(job);
  else status_[job] = status;
  changed_.notify_all();
}

bool JobNote::wait_pending(const std::vector<std::string>& jobs, Duration limit) {
  const auto is = [this](const std::string& job, std::initializer_list<std::string_view> states) {
    const auto found = status_.find(job);
    return found != status_.end() && is_one_of(found->second, states);
  };
  bool ended = false;
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, limit, [&] {
    ended = std::any_of(jobs.begin(), jobs.end(), [&](auto& job) { return is(job, {"aborting", "concluded"}); });
    return ended || std::all_of(jobs.begin(), jobs.end(), [&](auto& job) { return is(job, {"pending"}); });
  }) && !ended;
}

struct DiskCopy::Job {
  std::string id, disk, status, error;
  std::uint64_t done = 0, all = 0;
};

Result<json> DiskCopy::ask(std::string_view command, const json& arguments) {
  TRY_ASSIGN(const std::string answer,
             monitor_.execute(command, arguments.empty() ? std::string() : arguments.dump(), kCommandLimit));
  return json::parse(answer, nullptr, false);
}

Status DiskCopy::tell(std::string_view command, const json& arguments) {
  const auto answer = ask(command, arguments);
  return answer.ok() ? Status() : Status(answer.error());
}

std::string DiskCopy::job_of(const std::string& disk) const { return "copy-" + id_.text + "_" + disk; }

Result<std::vector<DiskCopy::Job>> DiskCopy::jobs() {
  TRY_ASSIGN(const json answer, ask("query-jobs", json::object()));
  std::vector<Job> found;
  const std::string prefix = job_of("");
  for (const json& one : answer.is_array() ? answer : json::array()) {
    const std::string id = text_at(one, "id");
    if (!id.starts_with(prefix)) continue;
    found.push_back({id, id.substr(prefix.size()), text_at(one, "status"), text_at(one, "error"),
                     number_at(one, "current-progress"), number_at(one, "total-progress")});
  }
  return found;
}

Result<std::map<std::string, std::string>> DiskCopy::nodes_in_use() {
  TRY_ASSIGN(const json answer, ask("query-block", json::object()));
  std::map<std::string, std::string> nodes;
  for (const json& one : answer.is_array() ? answer : json::array()) {
    const auto inserted = one.find("inserted");
    if (inserted == one.end() || !inserted->is_object()) continue;
    const std::string node = text_at(*inserted, "node-name");
    nodes[disk_of_node(node)] = node;
  }
  return nodes;
}

Result<std::map<std::string, std::string>> DiskCopy::files_by_node() {
  TRY_ASSIGN(const json answer, ask("query-named-block-nodes", {{"flat", true}}));
  std::map<std::string, std::string> files;
  for (const json& one : answer.is_array() ? answer : json::array()) {
    files[text_at(one, "node-name")] = text_at(one, "file");
  }
  return files;
}

Status DiskCopy::add(const CopyRequest& request, const CopyRequest::Disk& disk, const std::string& node_in_use) {
  const std::string suffix = other_suffix(node_in_use);
  const json cache = {{"direct", !disk.is_remote && takes_direct_io(disk.path)}, {"no-flush", false}};
  const auto node = [&](std::string_view layer) { return std::string(layer) + disk.name + suffix; };
  const json here = {{"node-name", node("f-")}, {"driver", "file"}, {"filename", disk.path}, {"locking", "off"},
                     {"aio", "threads"},        {"cache", cache},   {"discard", "unmap"}};
  const json there = {{"node-name", node("f-")},
                      {"driver", "nbd"},
                      {"server", {{"type", "unix"}, {"path", disk.path}}},
                      {"export", disk.name},
                      {"discard", "unmap"}};
  const bool is_qcow2 = !disk.is_remote && disk.format == vm::DiskFormat::qcow2;
  // As core/vm/qemu_command makes them.
  TRY(tell("blockdev-add", disk.is_remote ? there : here));
  TRY(tell("blockdev-add", {{"node-name", node("q-")},
                            {"driver", is_qcow2 ? "qcow2" : "raw"},
                            {"file", node("f-")},
                            {"cache", cache},
                            {"discard", "unmap"},
                            // What is sparse stays so also where the storage does not tell its holes.
                            {"detect-zeroes", "unmap"}}));
  TRY(tell("blockdev-add",
           {{"node-name", node("d-")}, {"driver", "raw"}, {"file", node("q-")}, {"discard", "unmap"}}));
  json mirror = {{"job-id", job_of(disk.name)},
                 {"device", node_in_use},
                 {"target", node("d-")},
                 {"filter-node-name", "d-" + disk.name + std::string(kFilter)},
                 {"sync", "full"},
                 {"copy-mode", "write-blocking"},
                 // The guest never pays for the copy: where it fails, it ends.
                 {"on-source-error", "report"},
                 {"on-target-error", "report"},
                 {"auto-finalize", false},
                 {"auto-dismiss", false}};
  if (request.bytes_per_second > 0) mirror["speed"] = request.bytes_per_second / request.disks.size();
  return tell("blockdev-mirror", mirror);
}

Status DiskCopy::begin(const CopyRequest& request) {
  TRY_ASSIGN(const auto nodes, nodes_in_use());
  TRY_ASSIGN(const auto files, files_by_node());
  for (const auto& disk : request.disks) {
    const auto found = nodes.find(disk.name);
    if (found == nodes.end()) return Error{Code::not_found, "QEMU has no disk named " + disk.name + "."};
    // What an earlier copy that failed may have left.
    TRY(remove_nodes(files, {disk.name + other_suffix(found->second)}));
    if (const Status added = add(request, disk, found->second); !added.ok()) {
      (void)end(false);  // tried again by whoever settles the relocation
      return because("QEMU cannot copy disk " + disk.name, added.error());
    }
  }
  return {};
}

Result<CopyState> DiskCopy::state() {
  TRY_ASSIGN(const auto all, jobs());
  CopyState state;
  if (all.empty()) return state;
  state.phase = CopyState::Phase::held;
  for (const auto& job : all) {
    state.done_bytes += job.done;
    state.all_bytes += job.all;
    CopyState::Phase phase = CopyState::Phase::copying;
    if (job.status == "pending") phase = CopyState::Phase::held;
    else if (job.status == "ready" || job.status == "standby" || job.status == "waiting")
      phase = CopyState::Phase::ready;
    else if (is_one_of(job.status, {"aborting", "concluded", "null", "undefined"}))
      phase = CopyState::Phase::failed;
    if (phase == CopyState::Phase::failed) state.error = job.error.empty() ? "It was cancelled." : job.error;
    if (state.phase == CopyState::Phase::failed) continue;
    state.phase = phase == CopyState::Phase::failed ? phase : std::min(state.phase, phase);
  }
  return state;
}

Result<std::uint64_t> DiskCopy::allocated_bytes(const std::vector<std::string>& disks) {
  TRY_ASSIGN(const json answer, ask("query-block", json::object()));
  std::uint64_t bytes = 0;
  for (const json& one : answer.is_array() ? answer : json::array()) {
    const auto inserted = one.find("inserted");
    if (inserted == one.end() || !inserted->is_object() || !inserted->contains("image")) continue;
    const std::string disk = disk_of_node(text_at(*inserted, "node-name"));
    const bool counts = std::find(disks.begin(), disks.end(), disk) != disks.end();
    if (counts) bytes += number_at(inserted->at("image"), "actual-size");
  }
  return bytes;
}

void DiskCopy::tell_jobs(std::string_view command, const std::vector<Job>& jobs) {
  std::vector<QmpClient::Command> commands;
  for (const auto& job : jobs) commands.push_back({std::string(command), json{{"id", job.id}}.dump()});
  for (const auto& answer : monitor_.execute_all(commands, kCommandLimit)) {
    if (!answer) log(Level::debug, "a copy of disks goes another way", {{"why", answer.error().what}});
  }
}

Status DiskCopy::hold() {
  TRY_ASSIGN(const auto all, jobs());
  std::vector<Job> ready;
  std::vector<std::string> names;
  for (const auto& job : all) {
    names.push_back(job.id);
    if (job.status == "ready") ready.push_back(job);
  }
  tell_jobs("job-complete", ready);
  if (note_.wait_pending(names, kHeldLimit)) return {};
  return Error{Code::timed_out, "QEMU has not drained the disks yet."};
}

Status DiskCopy::let_go(bool use_new) {
  const auto all = jobs();
  if (!all.ok()) return not_yet(all.error());
  std::vector<Job> told;
  for (const auto& job : *all) {
    if (use_new ? job.status == "pending" : job.status != "concluded") told.push_back(job);
  }
  tell_jobs(use_new ? "job-finalize" : "job-cancel", told);
  return {};
}

Status DiskCopy::dismiss_jobs() {
  for (const auto deadline = Clock::now() + kEndLimit; Clock::now() < deadline;) {
    TRY_ASSIGN(const auto all, jobs());
    if (all.empty()) return {};
    std::vector<Job> concluded;
    for (const auto& job : all) {
      if (job.status == "concluded") concluded.push_back(job);
    }
    tell_jobs("job-dismiss", concluded);
    if (concluded.empty()) std::this_thread::sleep_for(kLook);
  }
  return Error{Code::timed_out, "QEMU does not end the copy of the disks."};
}

// With one wait: a guest may stand still.
Status DiskCopy::remove_nodes(const std::map<std::string, std::string>& files, const std::vector<std::string>& ends) {
  std::vector<QmpClient::Command> commands;
  for (const auto& end : ends) {
    for (const auto layer : kLayers) {
      const std::string node = std::string(layer) + end;
      if (files.count(node) != 0) commands.push_back({"blockdev-del", json{{"node-name", node}}.dump()});
    }
  }
  for (const auto& answer : monitor_.execute_all(commands, kCommandLimit)) {
    if (!answer.ok()) return answer.error();
  }
  return {};
}

Status DiskCopy::end(bool use_new) {
  TRY(let_go(use_new));
  return clean_up(use_new);
}

Status DiskCopy::clean_up(bool use_new) {
  if (const Status dismissed = dismiss_jobs(); !dismissed.ok()) return not_yet(dismissed.error());
  const auto nodes = nodes_in_use();
  if (!nodes.ok()) return not_yet(nodes.error());
  const auto files = files_by_node();
  if (!files.ok()) return not_yet(files.error());
  std::vector<std::string> gone;
  for (const auto& [disk, node] : *nodes) {
    const auto is_new = [&, name = disk](const std::string& suffix) {
      const auto file = files->find("f-" + name + suffix);
      return file != files->end() && file->second.find("." + id_.text + ".") != std::string::npos;
    };
    const std::string unused = other_suffix(node), used = unused.empty() ? std::string(kOther) : std::string();
    // safety: the image that the record does not name is never written again.
    if (is_new(use_new ? unused : used)) {
      return Error{Code::failed, "QEMU still uses the " + std::string(use_new ? "old" : "new") + " image of disk " +
                                     disk + "."};
    }
    gone.push_back(disk + unused);
  }
  const Status removed = remove_nodes(*files, gone);
  return removed.ok() ? Status() : not_yet(removed.error());
}

}  // namespace hf::qemu
