// What a hostile host can say outside of batches: headers, greetings, every message. Nothing may crash, and nothing may
// be larger than its limit. The first byte chooses the decoder.
#include "base/ensure.hpp"
#include "engine/wire/message.hpp"

using namespace hf::engine::wire;  // NOLINT: this file is one function

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Bytes input(reinterpret_cast<const std::byte*>(data), size);
  if (input.empty()) return 0;
  const Bytes body = input.subspan(1);
  switch (data[0] % 7) {
    case 0:
      if (body.size() >= kHeaderBytes) {
        const auto header = decode_header(body.first<kHeaderBytes>());
        if (header.ok()) ENSURE(header->bytes <= kBodyMax && header->unpacked <= kBodyMax, "limits hold");
        if (header.ok() && verify(*header, body.subspan(kHeaderBytes)))
          ENSURE(body.size() == kHeaderBytes + header->bytes, "a checksum is of a whole body");
      }
      break;
    case 1:
      if (const auto hello = decode_hello(body); hello.ok())
        ENSURE(hello->blocks.size() <= kBlocksMax, "limits hold");
      break;
    case 2:
      if (const auto sum = decode_round_sum(body); sum.ok()) ENSURE(body.size() == 32, "it is a whole one");
      break;
    case 3:
      if (const auto chunk = decode_device_chunk(body); chunk.ok())
        ENSURE(chunk->offset + chunk->bytes.size() <= chunk->total, "a chunk is within its total");
      break;
    case 4:
      if (const auto reason = decode_reason(body); reason.ok())
        ENSURE(reason->size() <= kTextMax, "limits hold");
      break;
    case 5:
      if (const auto tunnel = decode_tunnel_hello(body); tunnel.ok())
        ENSURE(tunnel->channel.size() <= kChannelMax, "limits hold");
      break;
    default:
      if (body.size() >= kGreetingBytes) {
        GreetingBytes bytes;
        std::copy_n(body.begin(), kGreetingBytes, bytes.begin());
        if (decode_greeting(bytes).ok()) ENSURE(bytes[0] == std::byte{'H'}, "it begins with the magic");
      }
  }
  return 0;
}
