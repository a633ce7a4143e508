#include "base/ensure.hpp"

#include <cstdio>
#include <cstdlib>

namespace hf {
void ensure_failed(const char* condition, const char* file, int line, const char* text) {
  std::fprintf(stderr, "level=error invariant=\"%s\" at=%s:%d text=\"%s\"\n", condition, file, line, text);
  std::abort();
}
}  // namespace hf
