#include "core/vm/identity.hpp"

#include <fmt/format.h>

#include <string_view>

#include "base/rng.hpp"

namespace hf::vm {
namespace {
std::uint64_t hash(std::string_view text, std::uint64_t basis) {
  for (char c : text) basis = (basis ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return Rng(basis).next();
}
}  // namespace

std::string generate_mac(std::uint64_t random_bits) {
  return fmt::format("52:54:00:{:02x}:{:02x}:{:02x}", random_bits >> 16 & 0xff, random_bits >> 8 & 0xff,
                     random_bits & 0xff);
}

std::string uuid_of(const VmId& vm) {
  const std::uint64_t high = hash(vm.text, 0xcbf29ce484222325ULL);  // FNV-1a's own offset basis
  const std::uint64_t low = hash(vm.text, 0x6c62272e07bb0142ULL);   // the upper half of its 128-bit one
  return fmt::format("{:08x}-{:04x}-8{:03x}-{:04x}-{:012x}", high >> 32, high >> 16 & 0xffff, high & 0xfff,
                     (low >> 48 & 0x3fff) | 0x8000, low & 0xffffffffffffULL);
}

}  // namespace hf::vm
