#include "engine/send_worker.hpp"

#include "sys/process/clock.hpp"

namespace hf::engine {
namespace {
constexpr unsigned kWindowBatches = 16;
constexpr unsigned kLookChunks = 1024;  // between two looks at the clock: some milliseconds of zero pages

// One thread adds, others read.
void count(std::atomic<std::uint64_t>& counter, std::uint64_t more = 1) {
  counter.store(counter.load(std::memory_order_relaxed) + more, std::memory_order_relaxed);
}

// What is used before anything was measured, or always.
wire::Packing fixed(Compression compression) {
  if (compression == Compression::lz4) return wire::Packing::lz4;
  return compression == Compression::zstd ? wire::Packing::zstd : wire::Packing::none;
}
}  // namespace

SendWorker::SendWorker(const GuestMemory& memory, Connection& connection, stream::Throttle& throttle,
                       const Failure& failure, Share share, Duration silence, const SenderOptions& options)
    : memory_(memory),
      connection_(connection),
      throttle_(throttle),
      failure_(failure),
      share_(share),
      silence_(silence),
      compression_(options.compression),
      packed_(wire::kHeaderBytes + wire::kBodyMax),
      cache_(options.delta_cache_bytes / share.workers),
      window_{.packing = fixed(options.compression)} {}

Status SendWorker::send_round(std::uint64_t round, const PageSet& pages) {
  sum_.round = round;
  batch_.begin(round);
  window_start_ = last_sent_ = sys::boot_now();
  blocked_before_ = connection_.blocked();
  for (const PageRange& range : pages) {
    const std::uint64_t end = range.first + range.count;
    const std::uint64_t first_chunk = range.first / kChunkPages;
    const std::uint64_t ahead =
        (share_.index + share_.workers - first_chunk % share_.workers) % share_.workers;
    for (std::uint64_t chunk = first_chunk + ahead; chunk * kChunkPages < end; chunk += share_.workers) {
      const std::uint64_t from = std::max(range.first, chunk * kChunkPages);
      TRY(send_chunk({from, std::min(end, (chunk + 1) * kChunkPages) - from}));
    }
  }
  if (!batch_.is_empty()) TRY(flush());
  measure();  // the pause between two rounds says nothing about the link
  return connection_.write(wire::frame_of(wire::Kind::round_end, wire::encode(sum_)));
}

Status SendWorker::send_chunk(const PageRange& pages) {
  for (PageNumber page = pages.first; page < pages.first + pages.count; ++page) {
    add(page);
    if (batch_.is_full()) TRY(flush());
  }
  return ++chunks_ % kLookChunks == 0 ? keep_alive() : Status();
}

// There may be nothing to send for long, where memory is all zeros.
Status SendWorker::keep_alive() {
  if (sys::boot_now() - last_sent_ < silence_ / 3) return {};
  last_sent_ = sys::boot_now();
  return connection_.write(wire::frame_of(wire::Kind::keep_alive, {}));
}

// The worker's own pages without gaps, so that its cache is used evenly.
std::uint64_t SendWorker::index_of(PageNumber page) const {
  return page / kChunkPages / share_.workers * kChunkPages + page % kChunkPages;
}

void SendWorker::add(PageNumber page) {
  // The guest may be writing to it: then this copy is wrong, and the page is in the next round.
  const std::byte* guest = memory_.page(page);
  const bool is_first_round = sum_.round == 1;
  if (wire::is_zero(guest)) {
    count(counters_.zero);
    if (is_first_round) return;  // the destination begins with zeros
    cache_.forget(page, index_of(page));
    batch_.add_zero({page, 1});
  } else if (is_first_round) {
    count(counters_.plain);
    batch_.add_plain(page, guest);  // most pages are never written again: no copy
  } else {
    add_again(page, guest);
  }
}

void SendWorker::add_again(PageNumber page, const std::byte* guest) {
  const std::uint64_t index = index_of(page);
  const std::byte* copy = batch_.add_plain(page, guest);
  std::byte* before = cache_.find(page, index);
  const std::size_t size =
      before == nullptr ? wire::kDeltaMax + 1 : wire::encode_delta(copy, before, delta_.data());
  if (size <= wire::kDeltaMax) {
    const wire::Bytes delta = wire::Bytes(delta_).first(size);
    wire::apply_delta(delta, before);
    batch_.replace_by_delta(page, delta);
    count(counters_.delta);
    return;
  }
  if (before == nullptr) before = cache_.add(page, index);
  if (before != nullptr) std::memcpy(before, copy, kPageBytes);
  count(counters_.plain);
}

Status SendWorker::flush() {
  wire::BatchWriter::Frame frame = batch_.finish();
  const wire::Bytes out = packed_frame(frame);
  const Instant before = sys::boot_now();
  TRY(throttle_.take(out.size(), failure_));
  last_sent_ = sys::boot_now();
  window_.blocked += last_sent_ - before;
  TRY(connection_.write(out));
  sum_.batches += 1;
  sum_.pages += batch_.pages();
  sum_.digest += frame.header.checksum;
  note_batch(batch_.body().size(), out.size());
  batch_.begin(sum_.round);
  return {};
}

// The frame as it is sent: packed, if that is wanted and makes it shorter.
wire::Bytes SendWorker::packed_frame(wire::BatchWriter::Frame& frame) {
  const wire::Packing packing = window_.packing;
  if (packing == wire::Packing::none) return frame.bytes;
  const Instant before = sys::boot_now();
  const auto room = std::span(packed_).subspan(wire::kHeaderBytes);
  const std::size_t size = packer_.pack(packing, batch_.body(), room);
  window_.packed += sys::boot_now() - before;
  if (size == 0) return frame.bytes;
  frame.header = wire::header_for(wire::Kind::batch, room.first(size), packing, batch_.body().size());
  wire::encode(frame.header, packed_.data());
  count(counters_.packed);
  return wire::Bytes(packed_).first(wire::kHeaderBytes + size);
}

void SendWorker::note_batch(std::uint64_t bytes, std::uint64_t sent_bytes) {
  count(counters_.batches);
  window_.bytes += bytes;
  window_.sent_bytes += sent_bytes;
  if (++window_batches_ < kWindowBatches) return;
  measure();
  choice_.observe(window_);
  window_ = {.packing = compression_ == Compression::adaptive ? choice_.best() : fixed(compression_)};
  window_batches_ = 0;
}

// Adds what passed since the last time to the window.
void SendWorker::measure() {
  const Instant now = sys::boot_now();
  const Duration blocked = connection_.blocked();
  window_.took += now - window_start_;
  window_.blocked += blocked - blocked_before_;
  window_start_ = now;
  blocked_before_ = blocked;
}

void SendWorker::add_to(RoundReport& report) const {
  report.zero_pages += counters_.zero.load(std::memory_order_relaxed);
  report.delta_pages += counters_.delta.load(std::memory_order_relaxed);
  report.plain_pages += counters_.plain.load(std::memory_order_relaxed);
  report.batches += counters_.batches.load(std::memory_order_relaxed);
  report.compressed_batches += counters_.packed.load(std::memory_order_relaxed);
  report.bytes += connection_.bytes_written();
}

}  // namespace hf::engine
