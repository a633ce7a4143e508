#pragma once
// Sender: the source's half of a motion's page copy. Its worker threads ("hf-send-N", one a data connection) read guest
// pages through our own mapping, find zero pages and small changes, compress when the link is slower than the
// processor, and send. A page always goes by the same connection, so that it is never overtaken by an older copy.
//
// Memory: delta_cache_bytes, and 1 MiB for each data connection. One thread drives it, in this order:
//   start_round, finish_round, ..., start_round, [send_device_state], finish_round, wait_loaded, tell_committed.
#include <memory>
#include <span>

#include "engine/connection.hpp"
#include "engine/guest_memory.hpp"
#include "engine/pages.hpp"

namespace hf::engine {

enum class Compression { off, adaptive, lz4, zstd };

struct SenderOptions {
  std::uint64_t delta_cache_bytes = 128ULL
                                    << 20U;  // copies of pages that were written again; touched as needed
  Compression compression = Compression::adaptive;
  std::uint64_t bytes_per_second = 0;  // over all connections; 0: no limit
};

// Of one round, or of all.
struct RoundReport {
  std::uint64_t round = 0;  // from 1
  std::uint64_t zero_pages = 0;
  std::uint64_t delta_pages = 0;
  std::uint64_t plain_pages = 0;
  std::uint64_t compressed_batches = 0;
  std::uint64_t batches = 0;
  std::uint64_t bytes = 0;  // on the wire, without TCP's and TLS's own
  Duration took{};          // from start_round to the acknowledgement

  std::uint64_t pages() const { return zero_pages + delta_pages + plain_pages; }
};

class Sender {
 public:
  // `memory` must outlive it.
  static std::unique_ptr<Sender> start(const GuestMemory& memory, Connections connections,
                                       SenderOptions options = {});
  // Ends the threads; what was not acknowledged is lost.
  virtual ~Sender() = default;

  // Returns at once; the pages are read while the guest may run. REQUIRES: no round is under way; pages exist.
  // The first round must hold all of guest memory: holes of the RAM file in it cost nothing.
  virtual Status start_round(PageSet pages) = 0;
  // Waits until the destination has put every page of the round in place and said so.
  // Code::corrupt if its counts or digest are not ours.
  virtual Result<RoundReport> finish_round() = 0;
  // The whole of it, at most kDeviceStateMax. The destination takes it up after every round that was started before.
  virtual Status send_device_state(std::span<const std::byte> state) = 0;
  // Until the destination says that it has loaded the device state. Its refusal: Code::failed with its words.
  virtual Status wait_loaded(Duration patience) = 0;
  // safety: says that the destination owns the VM; only after the commit was seen to succeed. The word may be lost with
  // the connection: then the destination reads the store.
  // `version`: that the store gave it.
  virtual Status tell_committed(std::uint64_t version) = 0;

  // Any thread. Every call above ends with Code::failed and this text; the destination is told.
  virtual void abort(const std::string& why) = 0;
  // Any thread: the sums so far, also of the round under way.
  virtual RoundReport total() const = 0;
  // Any thread. 0: no limit.
  virtual void limit(std::uint64_t bytes_per_second) = 0;
};

inline constexpr std::uint64_t kDeviceStateMax = 64ULL << 20U;

}  // namespace hf::engine
