#include "cli/motion_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>

#include "cli/session.hpp"

namespace hf::cli {
namespace {
using nlohmann::json;

constexpr std::size_t kValueColumns = 66;

std::uint64_t number(const json& report, const char* name) {
  const auto found = report.find(name);
  return found != report.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
}

// Milliseconds: with a tenth where that says something.
std::string ms(std::uint64_t us) {
  const double value = static_cast<double>(us) / 1000;
  return value < 99.95 ? fmt::format("{:.1f}", value) : fmt::format("{:.0f}", value);
}

std::string ms(const json& report, const char* name) { return ms(number(report, name)); }

// For how long frames for the guest were lost: until the destination heard of the stop and announced the guest. From
// then on they waited for it there.
std::string unreachable(const json& report) {
  return ms(number(report, "halt_us") + number(report, "scan_us") + number(report, "save_us"));
}

// Lines of at most kValueColumns; a word that is longer stands alone.
std::vector<std::string> wrapped(const std::string& text) {
  std::vector<std::string> lines(1);
  std::size_t begin = 0;
  while (begin < text.size()) {
    const std::size_t end = std::min(text.find(' ', begin), text.size());
    const std::string word = text.substr(begin, end - begin);
    if (!lines.back().empty() && columns_of(lines.back()) + 1 + columns_of(word) > kValueColumns)
      lines.emplace_back();
    lines.back() += (lines.back().empty() ? "" : " ") + word;
    begin = end + 1;
  }
  return lines;
}
}  // namespace

bool has_motion_report(const json& task) {
  const auto report = task.find("report"), relocation = task.find("relocation");
  const bool moved = report != task.end() && report->is_object() && number(*report, "rounds") > 0;
  return moved || (relocation != task.end() && relocation->is_object() && number(*relocation, "disks") > 0);
}

namespace {
std::vector<std::pair<std::string, std::string>> relocation_report(const json& relocation) {
  std::vector<std::pair<std::string, std::string>> out = {
      {"Disks", field(relocation, "disks")},
      {"Copied", fmt::format("{:.1f} MiB", static_cast<double>(number(relocation, "bytes")) / (1U << 20U))},
      {"Total time", fmt::format("{:.1f} s", static_cast<double>(number(relocation, "took_ms")) / 1000)}};
  // A moment later than the rest, and only of a guest that ran.
  if (number(relocation, "held_us") > 0) out.emplace_back("Disk requests held", ms(relocation, "held_us") + " ms");
  return out;
}
}  // namespace

std::vector<std::pair<std::string, std::string>> motion_report(const json& task) {
  const json& report = task.at("report");
  if (number(report, "rounds") == 0) return relocation_report(task.at("relocation"));
  const bool by_qemu = field(report, "engine") == "qemu";
  const std::uint64_t plain = number(report, "plain_pages"), delta = number(report, "delta_pages"),
                      zero = number(report, "zero_pages");
  std::vector<std::pair<std::string, std::string>> out = {
      {"From", field(report, "from")},
      {"To", field(report, "to")},
      {"Total time", fmt::format("{:.1f} s", static_cast<double>(number(report, "took_ms")) / 1000)},
      {"Rounds", field(report, "rounds")},
      {"Pages", fmt::format("{}: {} whole, {} changes, {} zero", plain + delta + zero, plain, delta, zero)},
      {number(report, "disks") > 0 ? "Memory sent" : "Sent",
       fmt::format("{:.1f} MiB", static_cast<double>(number(report, "bytes_sent")) / (1U << 20U))},
      {"Last stop", ms(report, "stop_us") + " ms"},
      {"... of it",
       by_qemu ? fmt::format("save and copy {}, load {}, resume {}", ms(report, "copy_us"), ms(report, "load_us"),
                             ms(report, "resume_us"))
               : fmt::format("halt {}, scan {}, save {}, copy {}, load {}, resume {}", ms(report, "halt_us"),
                             ms(report, "scan_us"), ms(report, "save_us"), ms(report, "copy_us"),
                             ms(report, "load_us"), ms(report, "resume_us"))}};
  if (number(report, "disks") > 0) {
    out.emplace_back("Disks", fmt::format("{}: {:.1f} MiB sent", number(report, "disks"),
                                          static_cast<double>(number(report, "disk_bytes")) / (1U << 20U)));
  }
  if (!by_qemu) {
    out.emplace_back("Network", "frames for it were lost for " + unreachable(report) + " ms, later ones waited");
  }
  if (by_qemu) {
    const bool asked = task.contains("limits") && field(task.at("limits"), "engine") == "qemu";
    out.emplace_back("Engine", asked ? "QEMU's own migration, as was asked for"
                                     : "QEMU's own migration: nobody else can read the memory");
  }
  const auto tracker = wrapped(field(report, "tracker"));
  for (std::size_t i = 0; i < tracker.size(); ++i) out.emplace_back(i == 0 ? "Tracker" : "", tracker[i]);
  return out;
}

}  // namespace hf::cli
