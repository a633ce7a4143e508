// Whatever a monitor sends, in whatever pieces, gives messages or an error.
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "sys/qemu/qmp_framing.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  hf::qemu::QmpFraming framing;
  std::string_view bytes(reinterpret_cast<const char*>(data), size);
  while (!bytes.empty()) {
    const std::size_t step = 1 + static_cast<unsigned char>(bytes.front()) % 32;
    if (!framing.feed(bytes.substr(0, step)).ok()) return 0;
    bytes.remove_prefix(std::min(step, bytes.size()));
  }
  return 0;
}
