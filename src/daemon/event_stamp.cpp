#include "daemon/event_stamp.hpp"

#include <fmt/format.h>

#include "sys/process/clock.hpp"

namespace hf::daemon {

void EventStamp::stamp(record::EventRecord& event) {
  event.time = sys::wall_ms();
  event.host = host_;
  event.id = fmt::format("{:016x}-{}-{:06x}", event.time, host_.text, ++counter_ & 0xffffff);
}

}  // namespace hf::daemon
