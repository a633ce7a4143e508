#include "lab/guest_blob.hpp"

asm(".section .rodata\n"
    ".balign 16\n"
    "hf_guest_init_begin:\n"
    ".incbin \"" HF_GUEST_INIT
    "\"\n"
    "hf_guest_init_end:\n"
    ".byte 0\n"
    ".previous\n"
    ".globl hf_guest_init_begin\n"
    ".globl hf_guest_init_end\n");

extern "C" {
extern const char hf_guest_init_begin[];
extern const char hf_guest_init_end[];
}

namespace hf::lab {
std::string_view guest_init() {
  return {hf_guest_init_begin, static_cast<std::size_t>(hf_guest_init_end - hf_guest_init_begin)};
}
}  // namespace hf::lab
