#include "engine/receiver.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>

#include <deque>
#include <thread>

#include "base/ensure.hpp"
#include "engine/receive_worker.hpp"
#include "engine/sender.hpp"
#include "engine/stream/control.hpp"

namespace hf::engine {
namespace {

Error misplaced() { return {Code::corrupt, "The source said something that has no place here."}; }

class PageReceiver final : public Receiver {
 public:
  PageReceiver(GuestMemory& memory, Connections connections)
      : connections_(std::move(connections)),
        control_(*connections_.control, *connections_.failure, connections_.silence, "source"),
        round_event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    ENSURE(static_cast<bool>(round_event_), "a receiver needs one descriptor");
    for (const auto& connection : connections_.data) workers_.emplace_back(memory, *connection);
    streams_.resize(workers_.size());
    for (unsigned index = 0; index < workers_.size(); ++index)
      threads_.emplace_back([this, index] { run(index); });
  }

  ~PageReceiver() override {
    connections_.failure->set({Code::failed, "The motion has ended."});
    for (std::thread& thread : threads_) thread.join();
  }

  Result<ReceiverEvent> next() override {
    while (true) {
      if (is_state_whole_ && !is_handed_over()) {
        if (const Status whole = hand_over(); !whole.ok()) return failed(whole.error());
        return ReceiverEvent(DeviceState{std::move(device_state_)});
      }
      TRY_ASSIGN(const Frame frame, control_.read());
      if (frame.header.kind == wire::Kind::committed && told_loaded_) {
        const Result<std::uint64_t> version = wire::decode_version(frame.body);
        if (!version.ok()) return failed(version.error());
        return ReceiverEvent(Committed{*version});
      }
      if (frame.header.kind != wire::Kind::device_state || is_handed_over()) return failed(misplaced());
      const bool is_first = device_state_.empty();
      if (const Status taken = take_device_chunk(frame.body); !taken.ok()) return failed(taken.error());
      if (is_first) return ReceiverEvent(GuestStopped{});
    }
  }

  Status tell_loaded() override {
    told_loaded_ = true;
    return control_.write(wire::Kind::loaded);
  }

  void abort(const std::string& why) override { control_.fail({Code::failed, why}); }

  ReceiverProgress progress() const override {
    ReceiverProgress progress;
    {
      const std::scoped_lock lock(mutex_);
      progress.rounds = rounds_;
    }
    for (const ReceiveWorker& worker : workers_) progress.pages += worker.pages();
    for (const auto& connection : connections_.data) progress.bytes += connection->bytes_read();
    return progress;
  }

 private:
  // Of one page connection, under the mutex. `round`: the one that it is in or has ended last.
  struct Stream {
    std::uint64_t round = 0;
    bool is_open = false;
  };

  Error failed(const Error& error) {
    control_.fail(error);
    return error;
  }

  bool is_handed_over() const {
    const std::scoped_lock lock(mutex_);
    return handed_over_;
  }

  Status take_device_chunk(wire::Bytes body) {
    TRY_ASSIGN(const wire::DeviceChunk chunk, wire::decode_device_chunk(body));
    if (chunk.total > kDeviceStateMax)
      return Error{Code::corrupt, fmt::format("The source announces {} bytes of device state.", chunk.total)};
    if (device_state_.empty()) {
      device_round_ = chunk.round;
      device_bytes_ = chunk.total;
    }
    if (chunk.offset != device_state_.size() || chunk.round != device_round_ || chunk.total != device_bytes_)
      return misplaced();
    device_state_.insert(device_state_.end(), chunk.bytes.begin(), chunk.bytes.end());
    is_state_whole_ = device_state_.size() == device_bytes_;
    return {};
  }

  // Waits until the device state's round is in place; from then on nothing is written into guest memory any more.
  Status hand_over() {
    while (true) {
      {
        const std::scoped_lock lock(mutex_);
        awaited_ = device_round_;
        if (rounds_ > device_round_) return misplaced();
        if (rounds_ == device_round_) {
          for (const Stream& stream : streams_) {
            if (stream.is_open) return misplaced();
          }
          handed_over_ = true;
          return {};
        }
      }
      pollfd waiting[] = {{round_event_.get(), POLLIN, 0}, {connections_.failure->descriptor(), POLLIN, 0}};
      ::poll(waiting, 2, -1);  // the page connections' threads see to it that one of the two comes
      if (waiting[1].revents != 0) return connections_.failure->status();
      eventfd_t count = 0;
      (void)::eventfd_read(round_event_.get(), &count);  // the number says nothing
    }
  }

  void run(unsigned index) {
    ::pthread_setname_np(::pthread_self(), ("hf-recv-" + std::to_string(index)).c_str());
    Status outcome;
    while (outcome.ok()) outcome = take_frame(index);
    // Once the memory is complete, the page connections have no use any more.
    if (!is_handed_over() || outcome.code() == Code::corrupt) control_.fail(outcome.error());
  }

  Status take_frame(unsigned index) {
    ReceiveWorker& worker = workers_[index];
    TRY_ASSIGN(const Frame frame, read(index));
    if (frame.header.kind == wire::Kind::keep_alive) return {};
    if (frame.header.kind == wire::Kind::batch) {
      TRY_ASSIGN(const std::uint64_t round, open_round(index));
      return worker.place(frame, round);
    }
    if (frame.header.kind != wire::Kind::round_end) return misplaced();
    TRY_ASSIGN(const std::uint64_t round, open_round(index));
    TRY(worker.check_end(frame, round));
    return close_round(index, round);
  }

  // Between two rounds a page connection is silent as long as the guest runs; within one it is not.
  Result<Frame> read(unsigned index) {
    std::uint64_t suspect = 0;
    while (true) {
      Result<Frame> frame = workers_[index].connection().read(connections_.silence);
      if (frame.ok() || frame.code() != Code::timed_out) return frame;
      const std::uint64_t round = round_under_way(index);
      if (round != 0 && round == suspect) return Error{Code::unavailable, frame.error().what};
      suspect = round;  // it may have begun just now
    }
  }

  // The round that this stream has not ended although it was begun; 0: none.
  std::uint64_t round_under_way(unsigned index) const {
    const std::scoped_lock lock(mutex_);
    if (streams_[index].round > rounds_ && !streams_[index].is_open) return 0;
    bool is_begun = awaited_ > rounds_;
    for (const Stream& stream : streams_) is_begun = is_begun || stream.round > rounds_;
    return is_begun ? rounds_ + 1 : 0;
  }

  // The round that this stream is in; a new one only when all streams have ended the last.
  Result<std::uint64_t> open_round(unsigned index) {
    const std::scoped_lock lock(mutex_);
    Stream& stream = streams_[index];
    if (stream.is_open) return stream.round;
    // safety: memory that was handed over is the VM's: nothing writes into it any more. And a page of a new round
    // comes after every page of the last one.
    if (handed_over_ || stream.round != rounds_) return misplaced();
    stream = {rounds_ + 1, true};
    return stream.round;
  }

  Status close_round(unsigned index, std::uint64_t round) {
    wire::RoundSum all{.round = round};
    {
      const std::scoped_lock lock(mutex_);
      streams_[index].is_open = false;
      ended_ += 1;
      if (ended_ < workers_.size()) return {};
      ended_ = 0;
      for (const ReceiveWorker& worker :
           workers_) {  // the others have ended the round too, and begin none before us
        all.batches += worker.sum().batches;
        all.pages += worker.sum().pages;
        all.digest += worker.sum().digest;
      }
      rounds_ = round;
    }
    TRY(control_.write(wire::Kind::round_done, wire::encode(all)));
    ENSURE(::eventfd_write(round_event_.get(), 1) == 0, "it is read now and then");
    return {};
  }

  Connections connections_;
  stream::Control control_;
  process::UniqueFd round_event_;  // a round was completed
  std::deque<ReceiveWorker> workers_;

  // Of the thread that calls next().
  std::vector<std::byte> device_state_;
  std::uint64_t device_round_ = 0, device_bytes_ = 0;
  bool is_state_whole_ = false;
  bool told_loaded_ = false;

  mutable std::mutex mutex_;
  std::vector<Stream> streams_;
  std::uint64_t rounds_ = 0;   // complete ones
  unsigned ended_ = 0;         // streams that have ended the round after them
  std::uint64_t awaited_ = 0;  // the round of the device state, once that is there
  bool handed_over_ = false;
  std::vector<std::thread> threads_;
};
}  // namespace

Result<std::unique_ptr<Receiver>> Receiver::start(GuestMemory& memory, Connections connections) {
  PageNumber first = 0;
  for (const RamBlock& block : memory.blocks()) {
    TRY(memory.discard({first, block.bytes / kPageBytes}));
    first += block.bytes / kPageBytes;
  }
  return std::unique_ptr<Receiver>(std::make_unique<PageReceiver>(memory, std::move(connections)));
}

}  // namespace hf::engine
