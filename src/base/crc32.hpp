#pragma once
// CRC-32 as zlib, gzip and Ethernet compute it (reflected, polynomial 0xedb88320). Finds damage, not malice.
#include <array>
#include <cstdint>
#include <string_view>

namespace hf {
constexpr std::uint32_t crc32(std::string_view bytes) {
  constexpr auto kTable = [] {
    std::array<std::uint32_t, 256> table{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      std::uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) != 0 ? 0xedb88320U : 0U);
      table[i] = value;
    }
    return table;
  }();
  std::uint32_t sum = 0xffffffffU;
  for (char c : bytes) sum = kTable[(sum ^ static_cast<unsigned char>(c)) & 0xffU] ^ (sum >> 8);
  return ~sum;
}
static_assert(crc32("123456789") == 0xcbf43926U);
}  // namespace hf
