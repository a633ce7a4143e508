#pragma once
// Random ids. Stateless; any thread.
#include <cstddef>
#include <string>

namespace hf::pki {

// `bytes` random bytes as lower-case hex, from OpenSSL's generator.
std::string random_hex(std::size_t bytes);

}  // namespace hf::pki
