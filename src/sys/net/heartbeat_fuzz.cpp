// decode_heartbeat takes any bytes; only a whole, signed heartbeat is accepted, and it is written again the same. A
// fuzzer cannot guess a signature, so the input is also signed as the body of a heartbeat's sender.
#include "base/ensure.hpp"
#include "sys/net/heartbeat.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace hf::net;
  static const HeartbeatKey kKey(32, 7);
  const std::string text(reinterpret_cast<const char*>(data), size);
  if (const auto heard = decode_heartbeat(text, kKey); heard.ok()) {
    ENSURE(encode_heartbeat(*heard, kKey) == text, "A heartbeat that was accepted is written the same.");
  }
  const Heartbeat sent{hf::HostId(text), size};
  const auto heard = decode_heartbeat(encode_heartbeat(sent, kKey), kKey);
  if (heard.ok()) ENSURE(heard->from == sent.from && heard->counter == sent.counter, "It arrives as it was sent.");
  return 0;
}
