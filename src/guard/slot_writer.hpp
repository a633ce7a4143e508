#pragma once
// SlotWriter: renews this host's heartbeat slot on one datastore, once a heartbeat, on a thread of its own,
// so that a hung datastore delays nobody. A write that hangs cannot be interrupted: the destructor leaves
// such a thread behind; it ends when the storage answers. Reports go to the guard's thread over a
// ReportQueue.
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "base/result.hpp"
#include "core/ha/slot.hpp"
#include "guard/protocol.hpp"

namespace hf::guard {

// What the next heartbeat says; written by the guard's thread, read by the writers. Thread-safe.
class SlotContent {
 public:
  void set(ha::Slot slot) {
    const std::lock_guard lock(mutex_);
    slot_ = std::move(slot);
  }
  ha::Slot get() const {
    const std::lock_guard lock(mutex_);
    return slot_;
  }

 private:
  mutable std::mutex mutex_;
  ha::Slot slot_;  // under mutex_
};

struct RenewalReport {
  std::uint64_t writer = 0;
  Instant started{};
  Duration latency = 0ns;
  std::optional<Error> error;
};

// Reports of all writers, and an eventfd that is readable while there are some. Thread-safe.
class ReportQueue {
 public:
  ReportQueue();
  ~ReportQueue();
  ReportQueue(const ReportQueue&) = delete;
  ReportQueue& operator=(const ReportQueue&) = delete;
  int event_fd() const { return event_fd_; }
  void put(RenewalReport report);
  std::vector<RenewalReport> take();

 private:
  const int event_fd_;
  std::mutex mutex_;
  std::vector<RenewalReport> reports_;  // under mutex_; at most one for each writer and loop of the guard
};

class SlotWriter {
 public:
  struct Options {
    std::uint64_t number = 0;  // in its reports
    SlotTarget target;
    HostId host;
    Duration heartbeat = 1s;
  };
  // Shared: with the thread, which may outlive the writer and the guard's server.
  SlotWriter(Options options, std::shared_ptr<const SlotContent> content,
             std::shared_ptr<ReportQueue> reports);
  ~SlotWriter();
  SlotWriter(const SlotWriter&) = delete;
  SlotWriter& operator=(const SlotWriter&) = delete;

  // Expires when the thread has ended: how the guard counts those it left behind.
  std::weak_ptr<const void> thread_life() const { return state_; }

 private:
  struct State;
  static void run(const std::shared_ptr<State>& state);
  std::shared_ptr<State> state_;  // shared with the thread
};

}  // namespace hf::guard
