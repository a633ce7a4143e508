#pragma once
// Batches: pages of one round, as one frame's body. doc/formats.md "Page streams". Pure; one thread at a time.
#include "engine/pages.hpp"
#include "engine/wire/delta.hpp"
#include "engine/wire/frame.hpp"

namespace hf::engine::wire {

// A batch is sent once it has this much: long enough for few system calls, short enough that sending, receiving and
// placing overlap within the last round.
inline constexpr std::size_t kBatchBytes = 128 * 1024;

enum class PageKind : std::uint8_t { zero = 0, plain = 1, delta = 2 };

class BatchWriter {
 public:
  BatchWriter();
  void begin(std::uint64_t round);
  // Pages in any order; neighbours of one kind that are added one after the other become one run.
  void add_zero(const PageRange& pages);
  // Copies the page in and returns where the copy is; it stays there until the next call.
  const std::byte* add_plain(PageNumber page, const std::byte* bytes);
  // In place of the page that add_plain() added last.
  void replace_by_delta(PageNumber page, Bytes delta);

  bool is_empty() const { return size_ == kStart; }
  bool is_full() const { return size_ >= kBatchBytes; }
  Bytes body() const { return Bytes(frame_).subspan(kHeaderBytes, size_ - kHeaderBytes); }
  std::uint64_t pages() const { return pages_; }
  // The body as a whole frame, unpacked.
  struct Frame {
    Header header;
    Bytes bytes;
  };
  Frame finish();

 private:
  struct Run {
    std::size_t at = 0;  // of its header; 0: none
    PageKind kind = PageKind::zero;
    PageRange pages;
  };
  static constexpr std::size_t kStart = kHeaderBytes + sizeof(std::uint64_t);
  void extend(PageKind kind, const PageRange& pages);
  void write_run();

  std::vector<std::byte> frame_;
  std::size_t size_ = kStart;
  std::uint64_t pages_ = 0;
  Run run_, before_plain_;
  std::size_t size_before_plain_ = 0;
};

struct PageRun {
  PageKind kind = PageKind::zero;
  PageRange pages;
  Bytes bytes;  // plain: count pages; delta: of its one page
};

// Fills `runs` and returns the round. Every run is within 0 to `page_count`, every delta is one; Code::corrupt if
// anything is not, and then no run is to be used. The runs look into `body`.
Result<std::uint64_t> decode_batch(Bytes body, std::uint64_t page_count, std::vector<PageRun>& runs);

}  // namespace hf::engine::wire
