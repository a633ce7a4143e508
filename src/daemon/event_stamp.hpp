#pragma once
// EventStamp: stamps events with id, time and host. The id sorts by time and is unique in the cluster. Thread-safe.
#include <atomic>
#include <string>

#include "core/record/records.hpp"

namespace hf::daemon {

class EventStamp {
 public:
  explicit EventStamp(HostId host) : host_(std::move(host)) {}
  void stamp(record::EventRecord& event);

 private:
  const HostId host_;
  std::atomic<std::uint32_t> counter_{0};
};

}  // namespace hf::daemon
