#pragma once
// Network heartbeats: one small authenticated UDP datagram a second from each host to each other. They only ever say
// "alive": a heard heartbeat keeps a host from being declared dead. Format: doc/formats.md, "Network heartbeat".
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/ids.hpp"
#include "base/result.hpp"

namespace hf::net {

using HeartbeatKey = std::vector<std::uint8_t>;  // 32 bytes, known to the cluster's hosts

struct Heartbeat {
  HostId from;
  std::uint64_t counter = 0;  // grows with each one of a sender; a replayed one does not
};

// Pure. decode: Code::corrupt for anything that is not a whole heartbeat signed with this key.
std::string encode_heartbeat(const Heartbeat& heartbeat, const HeartbeatKey& key);
Result<Heartbeat> decode_heartbeat(const std::string& datagram, const HeartbeatKey& key);

// "10.0.0.1:7444" -> host and port. Code::invalid.
Result<std::pair<std::string, std::uint16_t>> split_address(const std::string& address);

// Owns a UDP socket and a receiving thread. Thread-safe.
class HeartbeatSocket {
 public:
  // `heard` is called on the receiving thread, once for each new heartbeat.
  static Result<std::unique_ptr<HeartbeatSocket>> open(const std::string& listen_address, HostId self, HeartbeatKey key,
                                                       std::function<void(const HostId&)> heard);
  virtual ~HeartbeatSocket() = default;
  // Best effort: a lost heartbeat is nothing unusual.
  virtual void send_to(const std::vector<std::string>& addresses) = 0;
};

}  // namespace hf::net
