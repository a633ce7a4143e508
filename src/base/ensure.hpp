#pragma once
// ENSURE(condition, text): a broken invariant stops the process, in every build. Not for bad input: that is an Error.

namespace hf {
[[noreturn]] void ensure_failed(const char* condition, const char* file, int line, const char* text);
}

#define ENSURE(condition, text)                                                        \
  do {                                                                                 \
    if (!(condition)) ::hf::ensure_failed(#condition, __FILE__, __LINE__, (text)); \
  } while (false)
