#pragma once
// Frames: what every byte of a page stream or a tunnel is part of, once the connection has been agreed on. A header
// with a checksum over it and the body; a body that may be packed as a whole. doc/formats.md "Page streams". Pure;
// any thread.
#include <array>

#include "base/result.hpp"
#include "engine/wire/bytes.hpp"

namespace hf::engine::wire {

inline constexpr std::uint16_t kVersion = 1;
inline constexpr std::size_t kHeaderBytes = 24;
inline constexpr std::size_t kBodyMax = 256 * 1024;  // also of an unpacked one

enum class Kind : std::uint8_t {
  hello = 1,
  welcome = 2,
  refused = 3,
  batch = 4,
  round_end = 5,
  round_done = 6,
  device_state = 7,
  loaded = 8,
  committed = 9,
  aborted = 10,
  keep_alive = 11,
  tunnel = 12,
  tunnel_data = 13,
  tunnel_end = 14,
  tunnel_closed = 15,
  stopped = 16,
};
enum class Packing : std::uint8_t { none = 0, lz4 = 1, zstd = 2 };

struct Header {
  Kind kind = Kind::keep_alive;
  Packing packing = Packing::none;
  std::uint32_t bytes = 0;     // of the body as it is sent
  std::uint32_t unpacked = 0;  // the same, unless packed
  std::uint64_t checksum = 0;
};

using HeaderBytes = std::array<std::byte, kHeaderBytes>;

// The header for this body; its checksum too. REQUIRES: no size above kBodyMax.
Header header_for(Kind kind, Bytes body, Packing packing = Packing::none, std::size_t unpacked = 0);
void encode(const Header& header, std::byte* to);  // kHeaderBytes
// Code::corrupt for what is no header of ours, or promises too much.
Result<Header> decode_header(std::span<const std::byte, kHeaderBytes> bytes);
// Does the checksum fit?
bool verify(const Header& header, Bytes body);

// Header and body, for what is small.
std::vector<std::byte> frame_of(Kind kind, Bytes body);

}  // namespace hf::engine::wire
