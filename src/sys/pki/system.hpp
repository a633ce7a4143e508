#pragma once
// Wall time for people and records, and random ids: what records need of the machine. Stateless; any thread.
#include <string>

#include "base/time.hpp"

namespace hf::pki {

WallMs wall_now();
// `bytes` random bytes as lower-case hex, from OpenSSL's generator.
std::string random_hex(std::size_t bytes);

}  // namespace hf::pki
