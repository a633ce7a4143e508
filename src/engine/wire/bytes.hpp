#pragma once
// Little-endian numbers and short texts in a message's body. Pure; any thread.
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

namespace hf::engine::wire {

static_assert(std::endian::native == std::endian::little, "Numbers go out as the processor has them.");

using Bytes = std::span<const std::byte>;

inline constexpr std::size_t kTextMax = 1024;

template <std::unsigned_integral Number>
void put(std::byte* to, Number number) {
  std::memcpy(to, &number, sizeof number);
}
template <std::unsigned_integral Number>
void append(std::vector<std::byte>& to, Number number) {
  to.resize(to.size() + sizeof number);
  put(to.data() + to.size() - sizeof number, number);
}
// 2 bytes length and the text, cut at kTextMax.
inline void append(std::vector<std::byte>& to, const std::string& text) {
  const std::size_t length = std::min(text.size(), kTextMax);
  append(to, static_cast<std::uint16_t>(length));
  const auto* first = reinterpret_cast<const std::byte*>(text.data());
  to.insert(to.end(), first, first + length);
}

// Takes a body apart from its front. Once something was missing, ok() is false, and numbers are 0.
class Reader {
 public:
  explicit Reader(Bytes bytes) : rest_(bytes) {}

  template <std::unsigned_integral Number>
  Number number() {
    Number value = 0;
    const Bytes from = bytes(sizeof value);
    if (ok_) std::memcpy(&value, from.data(), sizeof value);
    return value;
  }
  std::string text() {
    const std::size_t length = number<std::uint16_t>();
    if (length > kTextMax) ok_ = false;
    const Bytes from = bytes(length);
    return ok_ ? std::string(reinterpret_cast<const char*>(from.data()), from.size()) : std::string();
  }
  Bytes bytes(std::size_t count) {
    if (!ok_ || count > rest_.size()) {
      ok_ = false;
      return {};
    }
    const Bytes front = rest_.first(count);
    rest_ = rest_.subspan(count);
    return front;
  }
  Bytes rest() { return bytes(rest_.size()); }

  bool ok() const { return ok_; }
  // Everything was there, and nothing is left.
  bool complete() const { return ok_ && rest_.empty(); }
  bool at_end() const { return rest_.empty(); }

 private:
  Bytes rest_;
  bool ok_ = true;
};

}  // namespace hf::engine::wire
