#include "guard/slot_writer.hpp"

#include <sys/eventfd.h>
#include <unistd.h>

#include <thread>

#include "base/ensure.hpp"
#include "sys/process/clock.hpp"
#include "sys/datastore/datastore.hpp"

namespace hf::guard {

ReportQueue::ReportQueue() : event_fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  ENSURE(event_fd_ >= 0, "An eventfd is needed.");
}
ReportQueue::~ReportQueue() { ::close(event_fd_); }

void ReportQueue::put(RenewalReport report) {
  const std::lock_guard lock(mutex_);
  reports_.push_back(std::move(report));
  const std::uint64_t one = 1;
  ENSURE(::write(event_fd_, &one, sizeof one) == sizeof one, "The eventfd counts the reports.");
}

std::vector<RenewalReport> ReportQueue::take() {
  const std::lock_guard lock(mutex_);
  std::uint64_t count = 0;
  (void)!::read(event_fd_, &count, sizeof count);  // EAGAIN: there were none
  return std::exchange(reports_, {});
}

struct SlotWriter::State {
  Options options;
  std::shared_ptr<const SlotContent> content;
  std::shared_ptr<ReportQueue> reports;
  std::mutex mutex;
  std::condition_variable changed;
  bool closing = false;  // under mutex
};

SlotWriter::SlotWriter(Options options, std::shared_ptr<const SlotContent> content,
                       std::shared_ptr<ReportQueue> reports)
    : state_(std::make_shared<State>()) {
  state_->options = std::move(options);
  state_->content = std::move(content);
  state_->reports = std::move(reports);
  std::thread([state = state_] { run(state); }).detach();
}

SlotWriter::~SlotWriter() {
  const std::lock_guard lock(state_->mutex);
  state_->closing = true;
  state_->changed.notify_all();
}

void SlotWriter::run(const std::shared_ptr<State>& state) {
  const Options& options = state->options;
  bool made = false;
  std::uint64_t sequence = 0;
  for (;;) {
    const auto next = std::chrono::steady_clock::now() + options.heartbeat;
    // safety (deadline): the right is counted from before the first byte goes out.
    const Instant started = sys::boot_now();
    Status status =
        made ? Status{} : datastore::make_slot(options.target.mount, options.target.datastore, options.host);
    if (status.ok()) {
      made = true;
      ha::Slot slot = state->content->get();
      slot.sequence = ++sequence;
      slot.wall = sys::wall_ms();
      status = datastore::write_slot(options.target.mount, options.target.datastore, options.host,
                                     encode_slot(slot));
      if (!status.ok() && status.code() == Code::not_found) made = false;
    }
    std::unique_lock lock(state->mutex);
    if (state->closing) return;
    state->reports->put({options.number, started, sys::boot_now() - started,
                         status.ok() ? std::nullopt : std::optional(status.error())});
    if (state->changed.wait_until(lock, next, [&] { return state->closing; })) return;
  }
}

}  // namespace hf::guard
