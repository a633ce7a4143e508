#pragma once
// Break points: steps of a protocol at which a test of the real processes wants one of them to stand still, to do its
// worst just then: kill it, cut its host's power, let it go on late. Nothing happens unless the environment names a
// file, as the lab does, and the step stands in it: then the file is erased and the process stops itself (SIGSTOP).
// Any thread.
#include <string_view>

namespace hf {

inline constexpr const char* kBreakFile = "HOLDFAST_BREAK_FILE";

void break_point(std::string_view step);

}  // namespace hf
