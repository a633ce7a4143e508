#pragma once
// Messages: the bodies of all frames but batches (batch.hpp), and what two hosts say before the first frame.
// doc/formats.md "Page streams". Pure; any thread. Every decode: Code::corrupt for anything but a whole message.
#include "engine/wire/frame.hpp"

namespace hf::engine::wire {

// Before anything else, in the clear: the source says what it wants, the destination what it will be.
inline constexpr std::size_t kGreetingBytes = 8;
enum class Wish : std::uint8_t { plain = 0, tls_if_possible = 1, tls = 2 };
enum class Choice : std::uint8_t { plain = 0, tls = 1, other_version = 2, not_this_encryption = 3 };
struct Greeting {
  std::uint8_t version = 0;
  std::uint8_t word = 0;  // a Wish or a Choice
};
using GreetingBytes = std::array<std::byte, kGreetingBytes>;
GreetingBytes encode(const Greeting& greeting);
Result<Greeting> decode_greeting(const GreetingBytes& bytes);

inline constexpr std::size_t kBlocksMax = 64;

// The first frame of each connection. Answered with `welcome` (no body) or `refused` (a text).
struct Hello {
  std::uint8_t stream = 0;  // 0: control; 1 to data_streams: pages
  std::uint8_t data_streams = 0;
  std::string token, motion, vm;
  std::vector<std::uint64_t> blocks;  // bytes of each RAM block
  bool operator==(const Hello&) const = default;
};
std::vector<std::byte> encode(const Hello& hello);
Result<Hello> decode_hello(Bytes body);

// tunnel: the first frame of a tunnelled connection, instead of a Hello and answered as one.
inline constexpr std::size_t kChannelMax = 128;  // bytes of its name
struct TunnelHello {
  std::string token, motion, vm;
  std::string channel;  // "migration", "disk:root": what it is for
  bool operator==(const TunnelHello&) const = default;
};
std::vector<std::byte> encode(const TunnelHello& hello);
Result<TunnelHello> decode_tunnel_hello(Bytes body);

// round_end: what one data connection has carried so far, over all rounds. round_done: the same summed over all of
// them. The digest is the sum of the batches' checksums.
struct RoundSum {
  std::uint64_t round = 0;  // from 1
  std::uint64_t batches = 0;
  std::uint64_t pages = 0;
  std::uint64_t digest = 0;
  bool operator==(const RoundSum&) const = default;
};
std::vector<std::byte> encode(const RoundSum& sum);
Result<RoundSum> decode_round_sum(Bytes body);

// A part of the device state; it belongs to the memory as it is after this round.
inline constexpr std::size_t kChunkMax = 128 * 1024;
struct DeviceChunk {
  std::uint64_t round = 0;
  std::uint64_t total = 0;
  std::uint64_t offset = 0;
  Bytes bytes;
};
std::vector<std::byte> encode(const DeviceChunk& chunk);
Result<DeviceChunk> decode_device_chunk(Bytes body);

// committed: the version that the store gave the commit.
std::vector<std::byte> encode_version(std::uint64_t version);
Result<std::uint64_t> decode_version(Bytes body);

// refused, aborted: a sentence. Control characters in it are replaced: it is shown to people.
std::vector<std::byte> encode_reason(const std::string& text);
Result<std::string> decode_reason(Bytes body);

}  // namespace hf::engine::wire
