#pragma once
// The version of this build, as every program of it says.
#include <string_view>

namespace hf::daemon {
inline constexpr std::string_view kVersion = HOLDFAST_VERSION;
}
