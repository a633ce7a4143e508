// decode_slot takes any bytes; what it accepts, it can write and read again. A fuzzer cannot guess a checksum, so the
// input is also made the content of a slot that is whole.
#include <algorithm>

#include "base/crc32.hpp"
#include "base/ensure.hpp"
#include "core/ha/slot.hpp"

namespace {

// doc/formats.md "Slot": what the checksum covers begins with version and length.
constexpr std::size_t kCrcAt = 8, kCoveredFrom = 12, kLengthAt = 16, kContentAt = 20;

void put(std::string& out, std::size_t at, std::uint32_t number) {
  for (std::size_t i = 0; i < 4; ++i) out[at + i] = static_cast<char>((number >> (8 * i)) & 0xff);
}

std::string whole_slot(std::string_view content) {
  std::string out = hf::ha::encode_slot({});
  const std::size_t length = std::min(content.size(), out.size() - kContentAt);
  out.replace(kContentAt, length, content.substr(0, length));
  put(out, kLengthAt, static_cast<std::uint32_t>(kContentAt + length));
  put(out, kCrcAt, hf::crc32(std::string_view(out).substr(kCoveredFrom, kContentAt + length - kCoveredFrom)));
  return out;
}

void examine(std::string_view bytes) {
  const auto slot = hf::ha::decode_slot(bytes);
  if (!slot.ok()) return;
  const auto again = hf::ha::decode_slot(hf::ha::encode_slot(*slot));
  ENSURE(again.ok() && *again == *slot, "A slot that was accepted does not survive a round trip.");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  examine(bytes);
  examine(whole_slot(bytes));
  return 0;
}
