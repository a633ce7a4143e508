#pragma once
// QmpFraming: bytes from a QEMU monitor into messages. Pure; the other side is not trusted. One message is
// one line of JSON.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace hf::qemu {

struct QmpMessage {
  enum class Kind { greeting, reply, failure, event };
  Kind kind = Kind::greeting;
  std::uint64_t id = 0;  // of reply and failure; 0: none
  std::string name;      // of event; error class of failure
  std::string text;      // JSON: what `return` or `data` held; the description of failure
};

// Code::corrupt for what is not a message.
Result<QmpMessage> parse_qmp_message(std::string_view line);
// The line to send, newline included. `arguments`: JSON object or empty. Code::invalid if it is neither.
Result<std::string> format_qmp_command(std::string_view command, std::string_view arguments,
                                       std::uint64_t id);

class QmpFraming {
 public:
  static constexpr std::size_t kLineMax = 16 << 20;
  // The messages that became complete. After an error (Code::corrupt) the stream cannot be read on.
  Result<std::vector<QmpMessage>> feed(std::string_view bytes);

 private:
  std::string partial_;
};

}  // namespace hf::qemu
