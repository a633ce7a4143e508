#pragma once
// What the program prints: tables that fit the terminal, colours only where wanted, progress of tasks. No
// network. Used from one thread.
#include <iosfwd>
#include <string>
#include <string_view>
#include <vector>

#include "base/time.hpp"

namespace hf::cli {

struct Terminal {
  bool is_terminal = false;  // standard output is one
  bool colours = false;      // ... and NO_COLOR is not set
  int width = 0;             // columns; 0: unlimited (not a terminal)
};
Terminal detect_terminal();

enum class Colour { none, green, yellow, red, dim };
std::string paint(const Terminal& terminal, Colour colour, const std::string& text);
// The colour of a state's word: running, stopped, failed, ...
Colour colour_of_state(std::string_view state);

struct Table {
  std::vector<std::string> head;
  std::vector<std::vector<std::string>> rows;
  int state_column = -1;  // painted by colour_of_state
};
// Columns two spaces apart; if the lines are too long, the widest column is cut, with "…", until they fit or
// it is 8 wide.
std::string render(const Table& table, const Terminal& terminal);
// How many columns UTF-8 text takes, one a character; control characters are shown as "?".
std::size_t columns_of(std::string_view text);
std::string printable(std::string_view text);
// "2026-11-20 16:34:48" in UTC; "-" for 0.
std::string time_text(WallMs time);
std::string size_text(std::uint64_t mib);

}  // namespace hf::cli
