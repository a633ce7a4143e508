#include "sys/qemu/qmp_framing.hpp"

#include <nlohmann/json.hpp>

#include "base/json_nesting.hpp"

namespace hf::qemu {
namespace {
using nlohmann::json;

std::string text_of(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

std::uint64_t id_of(const json& message) {
  const auto id = message.find("id");
  return id != message.end() && id->is_number_unsigned() ? id->get<std::uint64_t>() : 0;
}

std::string string_of(const json& object, const char* member) {
  if (!object.is_object()) return {};
  const auto found = object.find(member);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

}  // namespace

Result<QmpMessage> parse_qmp_message(std::string_view line) {
  if (nests_too_deep(line)) return Error{Code::corrupt, "QEMU's monitor sent a line that nests too deep."};
  const json message = json::parse(line, nullptr, false);
  if (!message.is_object())
    return Error{Code::corrupt, "QEMU's monitor sent a line that is not a JSON object."};
  if (message.contains("QMP")) return QmpMessage{QmpMessage::Kind::greeting, 0, {}, text_of(message["QMP"])};
  if (message.contains("event")) {
    const json data = message.value("data", json::object());
    return QmpMessage{QmpMessage::Kind::event, 0, string_of(message, "event"), text_of(data)};
  }
  if (message.contains("return")) {
    return QmpMessage{QmpMessage::Kind::reply, id_of(message), {}, text_of(message["return"])};
  }
  if (message.contains("error")) {
    const json& problem = message["error"];
    return QmpMessage{QmpMessage::Kind::failure, id_of(message), string_of(problem, "class"),
                      string_of(problem, "desc")};
  }
  return Error{Code::corrupt, "QEMU's monitor sent a message of an unknown kind."};
}

Result<std::string> format_qmp_command(std::string_view command, std::string_view arguments,
                                       std::uint64_t id) {
  json message = {{"execute", command}, {"id", id}};
  if (!arguments.empty()) {
    message["arguments"] = json::parse(arguments, nullptr, false);
    if (!message["arguments"].is_object()) {
      return Error{Code::invalid, "The arguments of " + std::string(command) + " are not a JSON object."};
    }
  }
  return text_of(message) + "\n";
}

Result<std::vector<QmpMessage>> QmpFraming::feed(std::string_view bytes) {
  std::vector<QmpMessage> messages;
  while (!bytes.empty()) {
    const auto end = bytes.find('\n');
    const auto part = bytes.substr(0, end);
    if (partial_.size() + part.size() > kLineMax) {
      return Error{Code::corrupt, "QEMU's monitor sent a line longer than 16 MiB."};
    }
    partial_ += part;
    if (end == std::string_view::npos) break;
    bytes.remove_prefix(end + 1);
    if (partial_.find_first_not_of(" \t\r") != std::string::npos) {
      TRY_ASSIGN(auto message, parse_qmp_message(partial_));
      messages.push_back(std::move(message));
    }
    partial_.clear();
  }
  return messages;
}

}  // namespace hf::qemu
