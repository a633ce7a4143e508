#include "engine/wire/batch.hpp"

#include "base/ensure.hpp"

namespace hf::engine::wire {
namespace {
constexpr std::size_t kRunHeader = 8 + 4 + 1;  // first page, count, kind
constexpr std::uint64_t kRunPagesMax = UINT32_MAX;
// A batch that is not full takes one more page.
static_assert(kBatchBytes + kRunHeader + kPageBytes <= kBodyMax);
}  // namespace

BatchWriter::BatchWriter() : frame_(kHeaderBytes + kBodyMax) {}

void BatchWriter::begin(std::uint64_t round) {
  put(frame_.data() + kHeaderBytes, round);
  size_ = kStart;
  pages_ = 0;
  run_ = {};
}

void BatchWriter::write_run() {
  put(frame_.data() + run_.at, run_.pages.first);
  put(frame_.data() + run_.at + 8, static_cast<std::uint32_t>(run_.pages.count));
  put(frame_.data() + run_.at + 12, static_cast<std::uint8_t>(run_.kind));
}

void BatchWriter::extend(PageKind kind, const PageRange& pages) {
  const bool follows = run_.at != 0 && kind != PageKind::delta && run_.kind == kind &&
                       run_.pages.first + run_.pages.count == pages.first &&
                       run_.pages.count + pages.count <= kRunPagesMax;
  if (follows) {
    run_.pages.count += pages.count;
  } else {
    run_ = {size_, kind, pages};
    size_ += kRunHeader;
  }
  write_run();
  pages_ += pages.count;
}

void BatchWriter::add_zero(const PageRange& pages) {
  for (PageRange left = pages; left.count > 0;) {
    const std::uint64_t count = std::min(left.count, kRunPagesMax);
    extend(PageKind::zero, {left.first, count});
    left = {left.first + count, left.count - count};
  }
}

const std::byte* BatchWriter::add_plain(PageNumber page, const std::byte* bytes) {
  ENSURE(!is_full(), "a full batch is sent before the next page");
  before_plain_ = run_;
  size_before_plain_ = size_;
  extend(PageKind::plain, {page, 1});
  std::byte* copy = frame_.data() + size_;
  std::memcpy(copy, bytes, kPageBytes);
  size_ += kPageBytes;
  return copy;
}

void BatchWriter::replace_by_delta(PageNumber page, Bytes delta) {
  run_ = before_plain_;
  size_ = size_before_plain_;
  pages_ -= 1;
  if (run_.at != 0) write_run();
  extend(PageKind::delta, {page, 1});
  put(frame_.data() + size_, static_cast<std::uint16_t>(delta.size()));
  std::memcpy(frame_.data() + size_ + 2, delta.data(), delta.size());
  size_ += 2 + delta.size();
}

BatchWriter::Frame BatchWriter::finish() {
  const Header header = header_for(Kind::batch, body());
  encode(header, frame_.data());
  return {header, Bytes(frame_).first(size_)};
}

Result<std::uint64_t> decode_batch(Bytes body, std::uint64_t page_count, std::vector<PageRun>& runs) {
  runs.clear();
  Reader reader(body);
  const auto round = reader.number<std::uint64_t>();
  while (reader.ok() && !reader.at_end()) {
    PageRun run;
    run.pages.first = reader.number<std::uint64_t>();
    run.pages.count = reader.number<std::uint32_t>();
    const auto kind = reader.number<std::uint8_t>();
    run.kind = static_cast<PageKind>(kind);
    if (!reader.ok() || kind > static_cast<std::uint8_t>(PageKind::delta)) break;
    // safety: nothing that another host says makes us write outside the VM's memory.
    if (run.pages.count == 0 || run.pages.count > page_count ||
        run.pages.first > page_count - run.pages.count)
      return Error{Code::corrupt, "The page stream names memory that the VM does not have."};
    if (run.kind == PageKind::plain) run.bytes = reader.bytes(run.pages.count * kPageBytes);
    if (run.kind == PageKind::delta) run.bytes = reader.bytes(reader.number<std::uint16_t>());
    if (run.kind == PageKind::delta && (run.pages.count != 1 || !is_delta(run.bytes)))
      return Error{Code::corrupt, "The page stream has a damaged page difference."};
    runs.push_back(run);
  }
  if (!reader.complete()) return Error{Code::corrupt, "The page stream has a damaged batch of pages."};
  return round;
}

}  // namespace hf::engine::wire
