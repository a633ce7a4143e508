#include "sys/qemu/cpu_models.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "sys/process/run.hpp"
#include "sys/process/small_file.hpp"

namespace hf::qemu {
namespace {
using nlohmann::json;
constexpr Duration kAskLimit = 10s;
constexpr std::size_t kCpuinfoMax = 64 << 20;
constexpr const char* kPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";  // as run_tool's

std::string found_in_path(const std::string& binary) {
  if (binary.find('/') != std::string::npos) return binary;
  std::istringstream folders(kPath);
  for (std::string folder; std::getline(folders, folder, ':');) {
    if (::access((folder + "/" + binary).c_str(), X_OK) == 0) return folder + "/" + binary;
  }
  return binary;
}
}  // namespace

Result<cpu::Answers> ask_cpu_models(const std::string& binary, const std::string& accelerator) {
  process::RunOptions options;
  options.timeout = kAskLimit;
  for (const json& command : {json{{"execute", "qmp_capabilities"}},
                              json{{"execute", "query-cpu-definitions"}, {"id", "definitions"}},
                              json{{"execute", "query-cpu-model-expansion"},
                                   {"arguments", {{"type", "full"}, {"model", {{"name", "max"}}}}},
                                   {"id", "everything"}},
                              json{{"execute", "quit"}}}) {
    options.input += command.dump() + "\n";
  }
  TRY_ASSIGN(const auto done, process::run_tool({binary, "-machine", "none", "-accel", accelerator, "-nodefaults",
                                                 "-no-user-config", "-display", "none", "-S", "-sandbox", "on", "-qmp",
                                                 "stdio"},
                                                options));
  cpu::Answers answers;
  std::istringstream lines(done.out);
  for (std::string line; std::getline(lines, line);) {
    const json message = json::parse(line, nullptr, false);
    if (!message.is_object() || !message.contains("return")) continue;
    const json id = message.value("id", json());
    if (id == "definitions") answers.definitions = message.at("return").dump();
    if (id == "everything") answers.everything = message.at("return").dump();
  }
  if (!answers.definitions.empty() && !answers.everything.empty()) return answers;
  return Error{Code::failed, "QEMU does not say which CPU models it has: " + done.complaint()};
}

Result<record::HostCpu> host_cpu(const std::string& binary, const std::string& accelerator) {
  TRY_ASSIGN(const std::string cpuinfo, process::read_small_file("/proc/cpuinfo", kCpuinfoMax));
  TRY_ASSIGN(const auto answers, ask_cpu_models(binary, accelerator));
  return cpu::read_answers(answers, accelerator, cpu::processor_in(cpuinfo));
}

BinaryWatch::BinaryWatch(const std::string& binary) : path_(found_in_path(binary)), seen_(look()) {}

bool BinaryWatch::changed() {
  const Print now = look();
  if (now == Print{} || now == seen_) return false;
  seen_ = now;
  return true;
}

BinaryWatch::Print BinaryWatch::look() const {
  struct stat file{};
  if (::stat(path_.c_str(), &file) != 0) return {};
  return {static_cast<std::uint64_t>(file.st_ino), static_cast<std::uint64_t>(file.st_size),
          static_cast<std::int64_t>(file.st_mtim.tv_sec) * 1'000'000'000 + file.st_mtim.tv_nsec};
}

}  // namespace hf::qemu
