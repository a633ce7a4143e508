// decode_slot takes any bytes; what it accepts, it can write and read again.
#include "base/ensure.hpp"
#include "core/ha/slot.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (const auto slot = hf::ha::decode_slot(bytes); slot.ok()) {
    const auto again = hf::ha::decode_slot(hf::ha::encode_slot(*slot));
    ENSURE(again.ok() && *again == *slot, "A slot that was accepted does not survive a round trip.");
  }
  return 0;
}
