#pragma once
// ReceiveWorker: one page connection's share of a Receiver: checks batches and puts them into guest memory. One thread.
#include <atomic>

#include "engine/guest_memory.hpp"
#include "engine/stream/connection.hpp"
#include "engine/wire/batch.hpp"
#include "engine/wire/message.hpp"
#include "engine/wire/packing.hpp"

namespace hf::engine {

class ReceiveWorker {
 public:
  // From so many neighbours on, zero pages are given back instead of filled with zeros.
  static constexpr std::uint64_t kDiscardPages = 16;

  ReceiveWorker(GuestMemory& memory, Connection& connection) : memory_(memory), connection_(connection) {}

  // Puts the pages of this frame into memory. Code::corrupt if it is no batch of this round.
  Status place(const Frame& batch, std::uint64_t round);
  // Is this frame the end of this round, and does it say what was placed? Code::corrupt otherwise.
  Status check_end(const Frame& end, std::uint64_t round);
  // What was placed so far.
  const wire::RoundSum& sum() const { return sum_; }
  Connection& connection() { return connection_; }
  // Any thread.
  std::uint64_t pages() const { return pages_.load(std::memory_order_relaxed); }

 private:
  Status place(const wire::PageRun& run);

  GuestMemory& memory_;
  Connection& connection_;
  wire::Packer packer_;
  std::vector<std::byte> unpacked_;
  std::vector<wire::PageRun> runs_;
  wire::RoundSum sum_;
  std::atomic<std::uint64_t> pages_{0};
};

}  // namespace hf::engine
