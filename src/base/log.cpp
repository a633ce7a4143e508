#include "base/log.hpp"

#include <unistd.h>

#include <array>
#include <atomic>
#include <ctime>

namespace hf {
namespace {
std::atomic<Level> g_level{Level::info};
constexpr std::array<std::string_view, 4> kNames = {"debug", "info", "warn", "error"};

void append_quoted(std::string& line, std::string_view text) {
  const bool plain = !text.empty() && text.find_first_of(" \"=\n\\") == std::string_view::npos;
  if (plain) {
    line += text;
    return;
  }
  line += '"';
  for (char c : text) {
    if (c == '"' || c == '\\') line += '\\';
    if (c == '\n') {
      line += "\\n";
    } else {
      line += c;
    }
  }
  line += '"';
}

std::string wall_time() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  tm utc{};
  gmtime_r(&now.tv_sec, &utc);
  std::array<char, 40> text{};
  const std::size_t length = std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%S", &utc);
  std::string millis = std::to_string(1000 + now.tv_nsec / 1'000'000);
  return std::string(text.data(), length) + "." + millis.substr(1) + "Z";
}
}  // namespace

void set_log_level(Level level) { g_level = level; }

void log(Level level, std::string_view message, std::initializer_list<Field> fields) {
  if (level < g_level.load()) return;
  std::string line =
      "time=" + wall_time() + " level=" + std::string(kNames.at(static_cast<std::size_t>(level))) + " msg=";
  append_quoted(line, message);
  for (const auto& [key, value] : fields) {
    line += ' ';
    line += key;
    line += '=';
    append_quoted(line, value);
  }
  line += '\n';
  // One write keeps lines of several threads whole; a log that cannot be written has nowhere to be reported.
  [[maybe_unused]] auto written = ::write(STDERR_FILENO, line.data(), line.size());
}
}  // namespace hf
