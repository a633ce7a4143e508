#pragma once
// FNV-1a, 64 bits: names derived from ids, the same everywhere. Not for secrets, not against an adversary.
#include <cstdint>
#include <string_view>

namespace hf::qemu {
constexpr std::uint64_t kFnvBasis = 0xcbf29ce484222325ULL;
constexpr std::uint64_t fnv1a(std::string_view text, std::uint64_t basis = kFnvBasis) {
  for (const char letter : text) basis = (basis ^ static_cast<unsigned char>(letter)) * 0x100000001b3ULL;
  return basis;
}
}  // namespace hf::qemu
