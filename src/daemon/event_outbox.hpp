#pragma once
// EventOutbox: the events of this host on their way into the store, in order, over outages. Events are most telling
// when the store has just lost its leader. One thread ("hf-events"). Thread-safe.
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "base/time.hpp"
#include "core/record/records.hpp"
#include "port/store.hpp"

namespace hf::daemon {

class EventOutbox {
 public:
  static constexpr std::size_t kWaitingMax = 1000;  // beyond it the oldest is dropped: it stands in the log
  static constexpr Duration kRetry = 500ms;

  // The store must outlive this. What is not written at the end of this stands in the log alone.
  explicit EventOutbox(Store& store, Duration retry = kRetry);
  ~EventOutbox();
  EventOutbox(const EventOutbox&) = delete;
  EventOutbox& operator=(const EventOutbox&) = delete;

  // Stamped: its id makes that it is written once, however often it is sent. Returns at once.
  void add(record::EventRecord event);

 private:
  void run();
  // False: it may not be there yet.
  bool write(const record::EventRecord& event);

  Store& store_;
  const Duration retry_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<record::EventRecord> waiting_;
  bool ending_ = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace hf::daemon
