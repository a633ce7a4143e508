#pragma once
// Delta: a page as the words in which it differs from the copy that was sent last. Runs of
//   2 bytes: words that are the same; 2 bytes: words that follow; those words
// until nothing more differs. (Like QEMU's XBZRLE it carries the new words, not their XOR: putting it in place twice is
// harmless, and needs no reading.) Pure; any thread.
#include "engine/pages.hpp"
#include "engine/wire/bytes.hpp"

namespace hf::engine::wire {

// Beyond it, the page is sent plain: hardly shorter, and the comparison can stop.
inline constexpr std::size_t kDeltaMax = kPageBytes / 2;

bool is_zero(const std::byte* page);

// Writes at most kDeltaMax bytes to `to` and returns how many; kDeltaMax + 1 if the pages differ too much.
// 0: they are the same.
std::size_t encode_delta(const std::byte* page, const std::byte* before, std::byte* to);
// Does it stay within a page, and is it whole?
bool is_delta(Bytes delta);
// REQUIRES: is_delta(delta)
void apply_delta(Bytes delta, std::byte* page);

}  // namespace hf::engine::wire
