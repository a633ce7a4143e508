#include "sys/pki/random.hpp"

#include <openssl/rand.h>

#include <vector>

#include "base/ensure.hpp"

namespace hf::pki {

std::string random_hex(std::size_t bytes) {
  std::vector<unsigned char> raw(bytes);
  ENSURE(RAND_bytes(raw.data(), static_cast<int>(bytes)) == 1, "the system has no random numbers");
  std::string text;
  for (const unsigned char byte : raw) {
    constexpr char kHex[] = "0123456789abcdef";
    text += kHex[byte >> 4U];
    text += kHex[byte & 15U];
  }
  return text;
}

}  // namespace hf::pki
