#pragma once
// PackingChoice: whether a page connection packs its batches, and how. Packing pays when the link is slower than the
// processor; both are measured as the batches go. Pure; one for each sending thread.
//
// A byte costs max(processor, link): its classification and packing on the one hand, its share of the link on the
// other, since the kernel sends while we work on the next batch. The cheapest way wins.
#include <array>

#include "base/time.hpp"
#include "engine/wire/frame.hpp"

namespace hf::engine {

class PackingChoice {
 public:
  // What happened to some batches that were all treated alike.
  struct Window {
    wire::Packing packing = wire::Packing::none;
    std::uint64_t bytes = 0;       // of the batches
    std::uint64_t sent_bytes = 0;  // of what they became
    Duration took{};
    Duration blocked{};  // of that: waited for the link, or for the limit
    Duration packed{};   // of that: packing
  };
  void observe(const Window& window);
  wire::Packing best() const;

 private:
  // Seconds a byte and what is left of it. Before anything was measured: what LZ4 and zstd (level 1) do to common
  // memory on a common processor.
  struct Cost {
    double seconds = 0;
    double ratio = 1;
  };
  static constexpr std::array<Cost, 3> kGuess = {Cost{0, 1}, Cost{1 / 700e6, 0.55}, Cost{1 / 250e6, 0.4}};

  double time_of(std::size_t packing) const;
  std::array<Cost, 3> costs_ = kGuess;  // by Packing
  std::size_t used_before_ = 0;
  double work_seconds_ = 1 / 2e9;     // of a byte, without packing
  double link_bytes_per_second_ = 0;  // 0: it never was the slower one
};

}  // namespace hf::engine
