#pragma once
// The guest's init program (guest/), a static executable that is part of this library, so that the initrd can
// be made without looking for files. Immutable.
#include <string_view>

namespace hf::lab {
std::string_view guest_init();
}
