#include "cli/terminal.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>

namespace hf::cli {
namespace {
constexpr std::size_t kColumnMin = 8;
constexpr std::size_t kGap = 2;

bool begins_character(char c) { return (static_cast<unsigned char>(c) & 0xc0U) != 0x80U; }

std::string cut(const std::string& text, std::size_t width) {
  if (columns_of(text) <= width) return text;
  std::size_t seen = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (!begins_character(text[i]) || ++seen != width) continue;
    const std::string kept = text.substr(0, i);
    return kept.substr(0, kept.find_last_not_of(' ') + 1) + "…";
  }
  return text;
}

std::vector<std::size_t> widths_of(const Table& table, int limit) {
  std::vector<std::size_t> widths;
  for (const auto& name : table.head) widths.push_back(columns_of(name));
  for (const auto& row : table.rows) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], columns_of(row[i]));
  }
  std::size_t total = kGap * (widths.size() - 1);
  for (const auto width : widths) total += width;
  while (limit > 0 && total > static_cast<std::size_t>(limit)) {
    const auto widest = std::max_element(widths.begin(), widths.end());
    if (*widest <= kColumnMin) break;
    --*widest;
    --total;
  }
  return widths;
}
}  // namespace

Terminal detect_terminal() {
  Terminal out;
  out.is_terminal = ::isatty(STDOUT_FILENO) == 1;
  const char* no_colour = std::getenv("NO_COLOR");
  out.colours = out.is_terminal && (no_colour == nullptr || *no_colour == '\0');
  winsize size{};
  if (out.is_terminal)
    out.width = ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
  return out;
}

std::string paint(const Terminal& terminal, Colour colour, const std::string& text) {
  if (!terminal.colours || colour == Colour::none) return text;
  const char* code = colour == Colour::green    ? "32"
                     : colour == Colour::yellow ? "33"
                     : colour == Colour::red    ? "31"
                                                : "2";
  return fmt::format("\x1b[{}m{}\x1b[0m", code, text);
}

Colour colour_of_state(std::string_view state) {
  if (state == "running" || state == "succeeded" || state == "connected") return Colour::green;
  if (state == "failed" || state == "crashed" || state == "lost" || state == "error") return Colour::red;
  if (state == "paused" || state == "frozen" || state == "starting" || state == "stopping" || state == "queued" ||
      state == "warning" || state == "maintenance" || state == "entering maintenance") {
    return Colour::yellow;
  }
  return state == "stopped" ? Colour::dim : Colour::none;
}

std::size_t columns_of(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), begins_character));
}

// Names and messages come from elsewhere: they must not move the cursor.
std::string printable(std::string_view text) {
  std::string out;
  for (const char c : text)
    out += c == '\n' || c == '\t' ? ' ' : (static_cast<unsigned char>(c) < 0x20U || c == 0x7f) ? '?' : c;
  return out;
}

std::string render(const Table& table, const Terminal& terminal) {
  Table clean = table;
  for (auto& row : clean.rows) {
    row.resize(table.head.size());
    for (auto& cell : row) cell = cell.empty() ? "-" : printable(cell);
  }
  const auto widths = widths_of(clean, terminal.width);
  std::string out;
  const auto line = [&](const std::vector<std::string>& cells, bool head) {
    std::string text;
    for (std::size_t i = 0; i < cells.size(); ++i) {
      const std::string cell = cut(cells[i], widths[i]);
      const bool state = !head && static_cast<int>(i) == table.state_column;
      text += state  ? paint(terminal, colour_of_state(cell), cell)
              : head ? paint(terminal, Colour::dim, cell)
                     : cell;
      if (i + 1 < cells.size()) text += std::string(widths[i] - columns_of(cell) + kGap, ' ');
    }
    out += text + "\n";
  };
  line(clean.head, true);
  for (const auto& row : clean.rows) line(row, false);
  return out;
}

std::string time_text(WallMs time) {
  if (time == 0) return "-";
  const std::time_t seconds = time / 1000;
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &parts);
  return text;
}

std::string size_text(std::uint64_t mib) {
  return mib >= 1024 && mib % 1024 == 0 ? fmt::format("{} GiB", mib / 1024) : fmt::format("{} MiB", mib);
}

}  // namespace hf::cli
