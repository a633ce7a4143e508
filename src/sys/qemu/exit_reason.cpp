#include "sys/qemu/exit_reason.hpp"

#include <sstream>
#include <vector>

namespace hf::qemu {
namespace {

constexpr std::size_t kLastLines = 8;

// QEMU's ShutdownCause numbers, the same since QEMU 4.
std::string traced_reason(std::string_view qemu_log) {
  const auto at = qemu_log.rfind(kShutdownTrace);
  if (at == std::string_view::npos) return {};
  const auto line = qemu_log.substr(at, qemu_log.find('\n', at) - at);
  if (line.ends_with("reason=6")) return "guest-shutdown";
  if (line.ends_with("reason=7")) return "guest-reset";
  if (line.ends_with("reason=8")) return "guest-panic";
  return {};
}

}  // namespace

std::string last_words(std::string_view qemu_log) {
  std::istringstream lines{std::string(qemu_log)};
  std::vector<std::string> kept;
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty() && line.find(kShutdownTrace) == std::string::npos) kept.push_back(line);
  }
  std::string text;
  for (std::size_t index = kept.size() > kLastLines ? kept.size() - kLastLines : 0; index < kept.size();
       ++index) {
    if (!text.empty()) text += '\n';
    text += kept[index];
  }
  return text;
}

ExitReason explain_exit(const ExitFacts& facts) {
  if (facts.killed_by_us) return {ExitKind::killed, ""};
  const std::string reason =
      facts.shutdown_reason.empty() ? traced_reason(facts.qemu_log) : facts.shutdown_reason;
  if (reason == "guest-shutdown" || reason == "guest-reset") return {ExitKind::guest_shutdown, ""};
  if (reason == "guest-panic") return {ExitKind::guest_panic, ""};
  std::string text = last_words(facts.qemu_log);
  if (text.empty()) text = "QEMU ended without a word: it was killed, or the machine ran out of memory.";
  return {ExitKind::qemu_crash, text};
}

}  // namespace hf::qemu
