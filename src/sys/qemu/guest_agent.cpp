#include "sys/qemu/guest_agent.hpp"

#include <chrono>

#include "sys/qemu/unix_socket.hpp"

namespace hf::qemu {
namespace {
using Clock = std::chrono::steady_clock;
constexpr std::size_t kAnswerMax = 64 * 1024;

// guest-sync-delimited: 0xFF makes the agent's parser start afresh, and marks where its answer begins.
Status synchronise(int fd, Clock::time_point deadline) {
  const std::string id = std::to_string(Clock::now().time_since_epoch().count() & 0x7fffffff);
  const std::string ask = "\xff{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":" + id + "}}\n";
  TRY(send_all(fd, ask, deadline - Clock::now()));
  std::string answer;
  while (answer.size() < kAnswerMax) {
    TRY_ASSIGN(const std::string bytes, receive_some(fd, deadline - Clock::now()));
    if (bytes.empty()) return Error{Code::unavailable, "The guest agent's channel closed."};
    answer += bytes;
    const auto mark = answer.rfind('\xff');
    if (mark == std::string::npos || answer.find('\n', mark) == std::string::npos) continue;
    // Older answers may stand before ours.
    if (answer.find("\"return\": " + id, mark) != std::string::npos) return {};
    if (answer.find("\"return\":" + id, mark) != std::string::npos) return {};
  }
  return Error{Code::unavailable, "The guest agent does not answer as one."};
}

}  // namespace

Status ask_guest_to_shut_down(const std::string& agent_socket, Duration limit) {
  const auto deadline = Clock::now() + limit;
  TRY_ASSIGN(const process::UniqueFd fd, connect_unix(agent_socket));
  TRY(synchronise(fd.get(), deadline));
  // The agent answers this only if it fails.
  const std::string ask = "{\"execute\":\"guest-shutdown\",\"arguments\":{\"mode\":\"powerdown\"}}\n";
  return send_all(fd.get(), ask, deadline - Clock::now());
}

}  // namespace hf::qemu
