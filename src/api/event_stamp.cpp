#include "api/event_stamp.hpp"

#include <fmt/format.h>

#include <atomic>

namespace hf::api {

void stamp(record::EventRecord& event, const HostId& host, WallMs now) {
  static std::atomic<std::uint32_t> counter{0};
  event.time = now;
  event.host = host;
  event.id = fmt::format("{:016x}-{}-{:06x}", now, host.text, ++counter & 0xffffffU);
}

}  // namespace hf::api
