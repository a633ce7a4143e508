#include "engine/receive_worker.hpp"

namespace hf::engine {

Status ReceiveWorker::place(const Frame& batch, std::uint64_t round) {
  wire::Bytes body = batch.body;
  if (batch.header.packing != wire::Packing::none) {
    unpacked_.resize(wire::kBodyMax);
    const auto unpacked = std::span(unpacked_).first(batch.header.unpacked);
    if (!packer_.unpack(batch.header.packing, body, unpacked))
      return Error{Code::corrupt, "The page stream has a batch that cannot be unpacked."};
    body = unpacked;
  }
  TRY_ASSIGN(const std::uint64_t of_round, wire::decode_batch(body, memory_.page_count(), runs_));
  if (of_round != round) return Error{Code::corrupt, "The page stream has a batch of another round."};
  for (const wire::PageRun& run : runs_) {
    TRY(place(run));
    sum_.pages += run.pages.count;
  }
  sum_.batches += 1;
  sum_.digest += batch.header.checksum;
  pages_.store(sum_.pages, std::memory_order_relaxed);
  return {};
}

Status ReceiveWorker::place(const wire::PageRun& run) {
  switch (run.kind) {
    case wire::PageKind::zero:
      if (run.pages.count >= kDiscardPages) return memory_.discard(run.pages);
      for (std::uint64_t i = 0; i < run.pages.count; ++i)
        std::memset(memory_.page(run.pages.first + i), 0, kPageBytes);
      return {};
    case wire::PageKind::plain:
      for (std::uint64_t i = 0; i < run.pages.count; ++i)  // neighbours in number may be in two blocks
        std::memcpy(memory_.page(run.pages.first + i), run.bytes.data() + i * kPageBytes, kPageBytes);
      return {};
    case wire::PageKind::delta:
      wire::apply_delta(run.bytes, memory_.page(run.pages.first));
      return {};
  }
  return Error{Code::corrupt, "The page stream has an unknown kind of page."};
}

Status ReceiveWorker::check_end(const Frame& end, std::uint64_t round) {
  TRY_ASSIGN(const wire::RoundSum theirs, wire::decode_round_sum(end.body));
  sum_.round = round;
  if (theirs != sum_)
    return Error{Code::corrupt, "The page stream lost or changed pages: its sums do not fit."};
  return {};
}

}  // namespace hf::engine
