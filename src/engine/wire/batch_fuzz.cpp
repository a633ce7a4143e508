// What a hostile host can say about pages: the runs of a batch are put into a small memory of whole pages, packed or
// not; the sanitizer sees any byte outside of it. The first byte chooses the packing.
#include <vector>

#include "base/ensure.hpp"
#include "engine/wire/batch.hpp"
#include "engine/wire/packing.hpp"

using namespace hf::engine;        // NOLINT: this file is one function
using namespace hf::engine::wire;  // NOLINT

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::uint64_t kPages = 16;
  static std::vector<std::byte> memory(kPages * kPageBytes);
  static std::vector<std::byte> unpacked(kBodyMax);
  static std::vector<PageRun> runs;
  static Packer packer;
  if (size < 1 || size > kBodyMax) return 0;
  Bytes body(reinterpret_cast<const std::byte*>(data) + 1, size - 1);
  const auto packing = static_cast<Packing>(data[0] % 3);
  if (packing != Packing::none) {
    const auto to = std::span(unpacked).first(std::min(kBodyMax, std::size_t{data[0]} * 64));
    if (!packer.unpack(packing, body, to)) return 0;
    body = to;
  }
  if (!decode_batch(body, kPages, runs).ok()) return 0;
  for (const PageRun& run : runs) {
    ENSURE(run.pages.first + run.pages.count <= kPages, "every run is within memory");
    std::byte* page = memory.data() + run.pages.first * kPageBytes;
    if (run.kind == PageKind::zero) std::memset(page, 0, run.pages.count * kPageBytes);
    if (run.kind == PageKind::plain) std::memcpy(page, run.bytes.data(), run.pages.count * kPageBytes);
    if (run.kind == PageKind::delta) apply_delta(run.bytes, page);
  }
  return 0;
}
