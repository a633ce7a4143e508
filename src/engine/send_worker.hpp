#pragma once
// SendWorker: one page connection's share of a Sender. It reads, classifies and sends the chunks of guest memory that
// are this connection's. Its work runs on one thread; the counters may be read by any.
#include <array>
#include <atomic>

#include "engine/delta_cache.hpp"
#include "engine/packing_choice.hpp"
#include "engine/sender.hpp"
#include "engine/stream/connection.hpp"
#include "engine/stream/throttle.hpp"
#include "engine/wire/batch.hpp"
#include "engine/wire/message.hpp"
#include "engine/wire/packing.hpp"

namespace hf::engine {

class SendWorker {
 public:
  // Chunk i of guest memory is sent by worker i % workers.
  static constexpr std::uint64_t kChunkPages = 64;
  struct Share {
    unsigned index = 0;
    unsigned workers = 1;
  };
  SendWorker(const GuestMemory& memory, Connection& connection, stream::Throttle& throttle,
             const Failure& failure, Share share, Duration silence, const SenderOptions& options);

  // Sends this worker's pages of a round and its end.
  Status send_round(std::uint64_t round, const PageSet& pages);
  // What was sent so far, as the destination must have it. REQUIRES: no round is being sent.
  const wire::RoundSum& sum() const { return sum_; }
  // Any thread: adds what this worker did so far.
  void add_to(RoundReport& report) const;

 private:
  Status send_chunk(const PageRange& pages);
  Status keep_alive();
  void add(PageNumber page);
  void add_again(PageNumber page, const std::byte* guest);
  std::uint64_t index_of(PageNumber page) const;
  Status flush();
  wire::Bytes packed_frame(wire::BatchWriter::Frame& frame);
  void note_batch(std::uint64_t bytes, std::uint64_t sent_bytes);
  void measure();

  const GuestMemory& memory_;
  Connection& connection_;
  stream::Throttle& throttle_;
  const Failure& failure_;
  const Share share_;
  const Duration silence_;
  const Compression compression_;

  wire::BatchWriter batch_;
  wire::Packer packer_;
  std::vector<std::byte> packed_;
  DeltaCache cache_;
  std::array<std::byte, wire::kDeltaMax> delta_;
  wire::RoundSum sum_;
  unsigned chunks_ = 0;
  Instant last_sent_{};

  PackingChoice choice_;
  PackingChoice::Window window_;
  Instant window_start_{};
  Duration blocked_before_{};
  unsigned window_batches_ = 0;

  struct Counters {
    std::atomic<std::uint64_t> zero{0}, delta{0}, plain{0}, batches{0}, packed{0};
  } counters_;
};

}  // namespace hf::engine
