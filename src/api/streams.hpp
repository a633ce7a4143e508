#pragma once
// The two bodies that go on: events as server-sent events, and consoles. Owned by the Response that carries
// them.
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "api/handler.hpp"

namespace hf::api {

// At most this many go on at once on one host; the next is Code::unavailable.
inline constexpr int kStreamsMax = 16;

// Counts the streams that go on. Thread-safe.
class StreamLimit {
 public:
  // A place, given back when the pointer's last copy goes; null: none left.
  std::shared_ptr<void> take();

 private:
  std::shared_ptr<std::atomic<int>> used_ = std::make_shared<std::atomic<int>>(0);
};

// Every event after the id `after`, then each new one. `after` empty: new ones only.
Result<std::unique_ptr<Stream>> follow_events(Store& store, const std::string& after,
                                              std::shared_ptr<void> place);

// The consoles that are open through this host: one reader each, input from anybody who may. Thread-safe.
class Consoles {
 public:
  explicit Consoles(HostServices& services) : services_(services) {}
  // conflict if somebody reads it already.
  Result<std::unique_ptr<Stream>> attach(const VmId& vm, const std::string& name,
                                         std::shared_ptr<void> place);
  // timed_out if the guest does not take the input within 2 s.
  Status write(const VmId& vm, const std::string& name, const std::string& input);

 private:
  struct Session;
  class Output;
  HostServices& services_;
  std::mutex mutex_;
  std::map<std::string, std::weak_ptr<Session>> sessions_;
};

}  // namespace hf::api
