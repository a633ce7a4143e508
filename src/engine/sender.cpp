#include "engine/sender.hpp"

#include <fmt/format.h>
#include <pthread.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <thread>

#include "base/ensure.hpp"
#include "engine/send_worker.hpp"
#include "engine/stream/control.hpp"
#include "sys/process/clock.hpp"

namespace hf::engine {
namespace {

PageSet intersection(const PageSet& one, const PageSet& other) {
  PageSet both;
  for (auto a = one.begin(), b = other.begin(); a != one.end() && b != other.end();) {
    const PageNumber a_end = a->first + a->count;
    const PageNumber b_end = b->first + b->count;
    const PageNumber first = std::max(a->first, b->first);
    const PageNumber end = std::min(a_end, b_end);
    if (first < end) both.push_back({first, end - first});
    a_end < b_end ? ++a : ++b;
  }
  return both;
}

RoundReport difference(RoundReport now, const RoundReport& before) {
  now.zero_pages -= before.zero_pages;
  now.delta_pages -= before.delta_pages;
  now.plain_pages -= before.plain_pages;
  now.compressed_batches -= before.compressed_batches;
  now.batches -= before.batches;
  now.bytes -= before.bytes;
  return now;
}

class PageSender final : public Sender {
 public:
  PageSender(const GuestMemory& memory, Connections connections, const SenderOptions& options)
      : memory_(memory),
        connections_(std::move(connections)),
        throttle_(options.bytes_per_second),
        control_(*connections_.control, *connections_.failure, connections_.silence, "destination") {
    const auto workers = static_cast<unsigned>(connections_.data.size());
    for (unsigned index = 0; index < workers; ++index) {
      workers_.emplace_back(memory_, *connections_.data[index], throttle_, *connections_.failure,
                            SendWorker::Share{index, workers}, connections_.silence, options);
    }
    for (unsigned index = 0; index < workers; ++index) threads_.emplace_back([this, index] { run(index); });
  }

  ~PageSender() override {
    connections_.failure->set({Code::failed, "The motion has ended."});
    {
      const std::scoped_lock lock(mutex_);
      ending_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  Status start_round(PageSet pages) override {
    TRY(connections_.failure->status());
    round_start_ = sys::boot_now();
    before_round_ = total();
    // The holes of the RAM file are zeros, as the destination's memory is at the beginning: reading them would fill
    // them. Later on hardly a written page is in a hole.
    if (round_ == 0) {
      TRY_ASSIGN(PageSet present, memory_.present());
      pages = intersection(pages, present);
    }
    {
      const std::scoped_lock lock(mutex_);
      ENSURE(busy_ == 0, "one round after the other");
      pages_ = std::move(pages);
      busy_ = static_cast<unsigned>(threads_.size());
      ++round_;
    }
    changed_.notify_all();
    return {};
  }

  Result<RoundReport> finish_round() override {
    TRY_ASSIGN(const Frame frame, expect(wire::Kind::round_done));
    const Result<wire::RoundSum> theirs = wire::decode_round_sum(frame.body);
    if (!theirs.ok()) return failed(theirs.error());
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return busy_ == 0; });  // they have sent all: the destination has it
    }
    wire::RoundSum ours{.round = round_};
    for (const SendWorker& worker : workers_) {
      ours.batches += worker.sum().batches;
      ours.pages += worker.sum().pages;
      ours.digest += worker.sum().digest;
    }
    if (*theirs != ours)
      return failed({Code::corrupt, "The destination did not put the pages in place that were sent."});
    RoundReport report = difference(total(), before_round_);
    report.round = round_;
    report.took = sys::boot_now() - round_start_;
    return report;
  }

  Status send_device_state(std::span<const std::byte> state) override {
    if (state.empty() || state.size() > kDeviceStateMax)
      return Error{Code::invalid, fmt::format("A device state of {} bytes cannot be sent.", state.size())};
    for (std::size_t offset = 0; offset < state.size(); offset += wire::kChunkMax) {
      const auto bytes = state.subspan(offset, std::min(wire::kChunkMax, state.size() - offset));
      const auto body = wire::encode(wire::DeviceChunk{round_, state.size(), offset, bytes});
      if (const Status sent = control_.write(wire::Kind::device_state, body); !sent.ok())
        return failed(sent.error());
    }
    return {};
  }

  Status wait_loaded(Duration patience) override {
    const Result<Frame> frame = expect(wire::Kind::loaded, sys::boot_now() + patience);
    return frame.ok() ? Status() : Status(frame.error());
  }

  Status tell_committed(std::uint64_t version) override {
    return control_.write(wire::Kind::committed, wire::encode_version(version));
  }

  void abort(const std::string& why) override { control_.fail({Code::failed, why}); }

  RoundReport total() const override {
    RoundReport report;
    for (const SendWorker& worker : workers_) worker.add_to(report);
    return report;
  }

  void limit(std::uint64_t bytes_per_second) override { throttle_.limit(bytes_per_second); }

 private:
  Error failed(const Error& error) {
    control_.fail(error);
    return error;
  }

  Result<Frame> expect(wire::Kind kind, std::optional<Instant> deadline = std::nullopt) {
    TRY_ASSIGN(const Frame frame, control_.read(deadline));
    if (frame.header.kind == kind) return frame;
    return failed({Code::corrupt, "The destination said something that has no place here."});
  }

  void run(unsigned index) {
    ::pthread_setname_np(::pthread_self(), ("hf-send-" + std::to_string(index)).c_str());
    for (std::uint64_t done = 0;; ++done) {
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return ending_ || round_ > done; });
        if (ending_) return;
      }
      if (const Status sent = workers_[index].send_round(done + 1, pages_); !sent.ok())
        control_.fail(sent.error());
      const std::scoped_lock lock(mutex_);
      if (--busy_ == 0) changed_.notify_all();
    }
  }

  const GuestMemory& memory_;
  Connections connections_;
  stream::Throttle throttle_;
  stream::Control control_;
  std::deque<SendWorker> workers_;
  RoundReport before_round_;
  Instant round_start_{};

  std::mutex mutex_;
  std::condition_variable changed_;
  PageSet pages_;            // changed while no worker is busy
  std::uint64_t round_ = 0;  // written by the driving thread, under the mutex
  unsigned busy_ = 0;
  bool ending_ = false;
  std::vector<std::thread> threads_;
};
}  // namespace

std::unique_ptr<Sender> Sender::start(const GuestMemory& memory, Connections connections,
                                      SenderOptions options) {
  return std::make_unique<PageSender>(memory, std::move(connections), options);
}

}  // namespace hf::engine
