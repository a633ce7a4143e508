#pragma once
// Structured log lines on standard error: level=info msg="..." key=value ... (journald adds time and unit.)
// Levels by reader: error = a requested action failed or data is at risk; warn = abnormal, nothing failed;
// info = rare change an operator wants; debug = developers. Thread-safe. Never a secret.
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

namespace hf {
enum class Level { debug, info, warn, error };
using Field = std::pair<std::string_view, std::string>;
// Lines below this level are dropped. Default info. Set once at start.
void set_log_level(Level level);
void log(Level level, std::string_view message, std::initializer_list<Field> fields = {});
}  // namespace hf
