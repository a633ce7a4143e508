#pragma once
// nests_too_deep: a look at JSON from outside before it is parsed. Pure. The JSON library reads any depth, but writes
// and copies by recursion: some MiB of "[" would overflow the stack of the thread that does.
#include <string_view>

namespace hf {

// As toml++ does for TOML; QEMU's monitor and our own requests stay far below.
inline constexpr int kJsonLevelsMax = 256;

// Are more than kJsonLevelsMax arrays and objects inside each other? Exact for valid JSON, anything for other text.
constexpr bool nests_too_deep(std::string_view json) {
  int levels = 0;
  bool quoted = false;
  for (std::size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (quoted && c == '\\') {
      ++i;
    } else if (c == '"') {
      quoted = !quoted;
    } else if (!quoted && (c == '[' || c == '{')) {
      if (++levels > kJsonLevelsMax) return true;
    } else if (!quoted && (c == ']' || c == '}')) {
      --levels;
    }
  }
  return false;
}

}  // namespace hf
