#include "engine/wire/delta.hpp"

#include <array>

namespace hf::engine::wire {
namespace {
constexpr std::size_t kWord = sizeof(std::uint64_t);
constexpr std::size_t kWords = kPageBytes / kWord;
constexpr std::size_t kBlock = 16;  // words that are looked at together: the compiler makes vector code of it
constexpr std::size_t kRunHeader = 2 * sizeof(std::uint16_t);

std::uint64_t word_at(const std::byte* page, std::size_t index) {
  std::uint64_t word;
  std::memcpy(&word, page + index * kWord, kWord);
  return word;
}

bool blocks_differ(const std::byte* page, const std::byte* before, std::size_t first) {
  std::uint64_t difference = 0;
  for (std::size_t i = first; i < first + kBlock; ++i) difference |= word_at(page, i) ^ word_at(before, i);
  return difference != 0;
}

// The first word from `at` on that differs; kWords: none.
std::size_t next_difference(const std::byte* page, const std::byte* before, std::size_t at) {
  while (at < kWords) {
    if (at % kBlock == 0 && !blocks_differ(page, before, at)) {
      at += kBlock;
    } else if (word_at(page, at) != word_at(before, at)) {
      return at;
    } else {
      ++at;
    }
  }
  return kWords;
}

// Calls use(first word, its bytes) for each run. False: not a delta; then the runs before it were used.
template <class Use>
bool for_each_run(Bytes delta, Use use) {
  Reader reader(delta);
  std::size_t at = 0;
  while (!reader.at_end()) {
    at += reader.number<std::uint16_t>();
    const std::size_t count = reader.number<std::uint16_t>();
    const Bytes words = reader.bytes(count * kWord);
    if (!reader.ok() || count == 0 || at + count > kWords) return false;
    use(at, words);
    at += count;
  }
  return true;
}
}  // namespace

bool is_zero(const std::byte* page) {
  for (std::size_t first = 0; first < kWords; first += kBlock) {
    std::uint64_t seen = 0;
    for (std::size_t i = first; i < first + kBlock; ++i) seen |= word_at(page, i);
    if (seen != 0) return false;
  }
  return true;
}

std::size_t encode_delta(const std::byte* page, const std::byte* before, std::byte* to) {
  std::size_t size = 0;
  std::size_t same_from = 0;
  for (std::size_t at = next_difference(page, before, 0); at < kWords;
       at = next_difference(page, before, at)) {
    const std::size_t first = at;
    while (at < kWords && word_at(page, at) != word_at(before, at)) ++at;
    const std::size_t bytes = (at - first) * kWord;
    if (size + kRunHeader + bytes > kDeltaMax) return kDeltaMax + 1;
    put(to + size, static_cast<std::uint16_t>(first - same_from));
    put(to + size + 2, static_cast<std::uint16_t>(at - first));
    std::memcpy(to + size + kRunHeader, page + first * kWord, bytes);
    size += kRunHeader + bytes;
    same_from = at;
  }
  return size;
}

bool is_delta(Bytes delta) {
  return delta.size() <= kDeltaMax && for_each_run(delta, [](std::size_t, Bytes) {});
}

void apply_delta(Bytes delta, std::byte* page) {
  for_each_run(delta, [page](std::size_t at, Bytes words) {
    std::memcpy(page + at * kWord, words.data(), words.size());
  });
}

}  // namespace hf::engine::wire
