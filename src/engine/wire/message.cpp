#include "engine/wire/message.hpp"

#include <algorithm>
#include <cstring>

namespace hf::engine::wire {
namespace {
constexpr std::uint32_t kGreetingMagic = 0x54534648;  // "HFST"

Error damaged(const std::string& what) {
  return {Code::corrupt, "The page stream's " + what + " is damaged."};
}
}  // namespace

GreetingBytes encode(const Greeting& greeting) {
  GreetingBytes bytes{};
  put(bytes.data(), kGreetingMagic);
  put(bytes.data() + 4, greeting.version);
  put(bytes.data() + 5, greeting.word);
  return bytes;
}

Result<Greeting> decode_greeting(const GreetingBytes& bytes) {
  Reader reader(bytes);
  const auto magic = reader.number<std::uint32_t>();
  Greeting greeting;
  greeting.version = reader.number<std::uint8_t>();
  greeting.word = reader.number<std::uint8_t>();
  if (magic != kGreetingMagic)
    return Error{Code::corrupt, "The other side does not speak Holdfast's page streams."};
  return greeting;
}

std::vector<std::byte> encode(const Hello& hello) {
  std::vector<std::byte> body;
  append(body, hello.stream);
  append(body, hello.data_streams);
  append(body, hello.token);
  append(body, hello.motion);
  append(body, hello.vm);
  append(body, static_cast<std::uint16_t>(hello.blocks.size()));
  for (const std::uint64_t bytes : hello.blocks) append(body, bytes);
  return body;
}

Result<Hello> decode_hello(Bytes body) {
  Reader reader(body);
  Hello hello;
  hello.stream = reader.number<std::uint8_t>();
  hello.data_streams = reader.number<std::uint8_t>();
  hello.token = reader.text();
  hello.motion = reader.text();
  hello.vm = reader.text();
  const auto count = reader.number<std::uint16_t>();
  if (count > kBlocksMax) return damaged("hello");
  for (std::uint16_t i = 0; i < count; ++i) hello.blocks.push_back(reader.number<std::uint64_t>());
  if (!reader.complete()) return damaged("hello");
  return hello;
}

std::vector<std::byte> encode(const TunnelHello& hello) {
  std::vector<std::byte> body;
  for (const std::string* text : {&hello.token, &hello.motion, &hello.vm, &hello.channel}) append(body, *text);
  return body;
}

Result<TunnelHello> decode_tunnel_hello(Bytes body) {
  Reader reader(body);
  TunnelHello hello;
  for (std::string* text : {&hello.token, &hello.motion, &hello.vm, &hello.channel}) *text = reader.text();
  if (!reader.complete() || hello.channel.size() > kChannelMax) return damaged("tunnel");
  return hello;
}

std::vector<std::byte> encode(const RoundSum& sum) {
  std::vector<std::byte> body;
  for (const std::uint64_t number : {sum.round, sum.batches, sum.pages, sum.digest}) append(body, number);
  return body;
}

Result<RoundSum> decode_round_sum(Bytes body) {
  Reader reader(body);
  RoundSum sum;
  for (std::uint64_t* number : {&sum.round, &sum.batches, &sum.pages, &sum.digest})
    *number = reader.number<std::uint64_t>();
  if (!reader.complete()) return damaged("end of a round");
  return sum;
}

std::vector<std::byte> encode(const DeviceChunk& chunk) {
  std::vector<std::byte> body;
  body.reserve(3 * sizeof(std::uint64_t) + chunk.bytes.size());
  for (const std::uint64_t number : {chunk.round, chunk.total, chunk.offset}) append(body, number);
  body.insert(body.end(), chunk.bytes.begin(), chunk.bytes.end());
  return body;
}

Result<DeviceChunk> decode_device_chunk(Bytes body) {
  Reader reader(body);
  DeviceChunk chunk;
  for (std::uint64_t* number : {&chunk.round, &chunk.total, &chunk.offset})
    *number = reader.number<std::uint64_t>();
  chunk.bytes = reader.rest();
  if (!reader.ok() || chunk.bytes.empty() || chunk.bytes.size() > kChunkMax || chunk.offset > chunk.total ||
      chunk.bytes.size() > chunk.total - chunk.offset) {
    return damaged("device state");
  }
  return chunk;
}

std::vector<std::byte> encode_version(std::uint64_t version) {
  std::vector<std::byte> body;
  append(body, version);
  return body;
}

Result<std::uint64_t> decode_version(Bytes body) {
  Reader reader(body);
  const auto version = reader.number<std::uint64_t>();
  if (!reader.complete()) return Error{Code::corrupt, "A commit's version is not a number."};
  return version;
}

std::vector<std::byte> encode_reason(const std::string& text) {
  std::vector<std::byte> body;
  append(body, text);
  return body;
}

Result<std::string> decode_reason(Bytes body) {
  Reader reader(body);
  std::string text = reader.text();
  if (!reader.complete()) return damaged("refusal");
  std::replace_if(
      text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < ' ' || c == 0x7f; }, ' ');
  return text;
}

}  // namespace hf::engine::wire
