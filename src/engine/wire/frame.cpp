#include "engine/wire/frame.hpp"

#include <xxhash.h>

#include "base/ensure.hpp"

namespace hf::engine::wire {
namespace {
constexpr std::uint32_t kMagic = 0x67704648;  // "HFpg"
constexpr std::size_t kChecked = 16;          // the header's bytes before the checksum

void encode_checked(const Header& header, std::byte* to) {
  put(to, kMagic);
  put(to + 4, static_cast<std::uint8_t>(header.kind));
  put(to + 5, static_cast<std::uint8_t>(header.packing));
  put(to + 6, std::uint16_t{0});
  put(to + 8, header.bytes);
  put(to + 12, header.unpacked);
}

// The body's checksum begins with the header's, so that none of the two can be exchanged.
std::uint64_t checksum_of(const Header& header, Bytes body) {
  std::array<std::byte, kChecked> checked;
  encode_checked(header, checked.data());
  return XXH3_64bits_withSeed(body.data(), body.size(), XXH3_64bits(checked.data(), checked.size()));
}
}  // namespace

Header header_for(Kind kind, Bytes body, Packing packing, std::size_t unpacked) {
  ENSURE(body.size() <= kBodyMax && unpacked <= kBodyMax, "whoever makes a body keeps to its limit");
  Header header{.kind = kind, .packing = packing, .bytes = static_cast<std::uint32_t>(body.size())};
  header.unpacked = packing == Packing::none ? header.bytes : static_cast<std::uint32_t>(unpacked);
  header.checksum = checksum_of(header, body);
  return header;
}

void encode(const Header& header, std::byte* to) {
  encode_checked(header, to);
  put(to + kChecked, header.checksum);
}

Result<Header> decode_header(std::span<const std::byte, kHeaderBytes> bytes) {
  Reader reader(bytes);
  const auto magic = reader.number<std::uint32_t>();
  const auto kind = reader.number<std::uint8_t>();
  const auto packing = reader.number<std::uint8_t>();
  const auto zero = reader.number<std::uint16_t>();
  Header header;
  header.bytes = reader.number<std::uint32_t>();
  header.unpacked = reader.number<std::uint32_t>();
  header.checksum = reader.number<std::uint64_t>();
  if (magic != kMagic || zero != 0) return Error{Code::corrupt, "What came is not a page stream's frame."};
  if (kind < static_cast<std::uint8_t>(Kind::hello) || kind > static_cast<std::uint8_t>(Kind::stopped) ||
      packing > static_cast<std::uint8_t>(Packing::zstd)) {
    return Error{Code::corrupt, "A frame of the page stream has an unknown kind."};
  }
  header.kind = static_cast<Kind>(kind);
  header.packing = static_cast<Packing>(packing);
  const bool packed = header.packing != Packing::none;
  const bool fits =
      packed ? header.kind == Kind::batch && header.bytes < header.unpacked : header.bytes == header.unpacked;
  if (!fits || header.unpacked > kBodyMax)
    return Error{Code::corrupt, "A frame of the page stream has an impossible length."};
  return header;
}

bool verify(const Header& header, Bytes body) {
  return body.size() == header.bytes && checksum_of(header, body) == header.checksum;
}

std::vector<std::byte> frame_of(Kind kind, Bytes body) {
  std::vector<std::byte> frame(kHeaderBytes);
  encode(header_for(kind, body), frame.data());
  frame.insert(frame.end(), body.begin(), body.end());
  return frame;
}

}  // namespace hf::engine::wire
