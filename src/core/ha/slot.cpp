#include "core/ha/slot.hpp"

#include <algorithm>

#include "base/crc32.hpp"

namespace hf::ha {
namespace {
// magic 8, crc 4, version 4, length 4, flags 4, sequence 8, wall 8; then texts and the list.
constexpr std::string_view kMagic("HFSLOT\r\n", 8);
constexpr std::size_t kCrcAt = 8;
constexpr std::size_t kCoveredFrom = 12;
constexpr std::size_t kLengthAt = 16;
constexpr std::uint32_t kStoppedAll = 1;

template <class Number>
void put(std::string& out, Number number) {
  for (std::size_t i = 0; i < sizeof number; ++i) out += static_cast<char>((number >> (8 * i)) & 0xff);
}
template <class Number>
void put_at(std::string& out, std::size_t at, Number number) {
  std::string bytes;
  put(bytes, number);
  out.replace(at, bytes.size(), bytes);
}
void put_text(std::string& out, const std::string& text) {
  const std::string_view cut = std::string_view(text).substr(0, kSlotTextMax);
  put(out, static_cast<std::uint16_t>(cut.size()));
  out += cut;
}

// Reads within its bytes only; `ok` falls for good with the first read beyond the end.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}
  template <class Number>
  Number number() {
    Number value = 0;
    const std::string_view bytes = take(sizeof(Number));
    for (std::size_t i = bytes.size(); i-- > 0;) {
      value = static_cast<Number>((static_cast<std::uint64_t>(value) << 8) |
                                  static_cast<unsigned char>(bytes[i]));
    }
    return value;
  }
  std::string text() {
    const auto length = number<std::uint16_t>();
    if (length > kSlotTextMax) ok_ = false;
    return std::string(take(length));
  }
  std::string_view take(std::size_t length) {
    if (!ok_ || length > rest_.size()) {
      ok_ = false;
      return {};
    }
    const std::string_view taken = rest_.substr(0, length);
    rest_.remove_prefix(length);
    return taken;
  }
  bool ok() const { return ok_; }

 private:
  std::string_view rest_;
  bool ok_ = true;
};
}  // namespace

std::string encode_slot(const Slot& slot) {
  std::string out(kMagic);
  put<std::uint32_t>(out, 0);
  put(out, kSlotVersion);
  put<std::uint32_t>(out, 0);
  put<std::uint32_t>(out, slot.stopped_all ? kStoppedAll : 0);
  put(out, slot.sequence);
  put(out, static_cast<std::uint64_t>(slot.wall));
  put_text(out, slot.host.text);
  put_text(out, slot.session.text);
  put_text(out, slot.incarnation);
  put(out, std::max(slot.running_total, static_cast<std::uint32_t>(slot.running.size())));
  const std::size_t listed_at = out.size();
  put<std::uint16_t>(out, 0);
  std::uint16_t listed = 0;
  for (const auto& running : slot.running) {
    const std::size_t needed = 2 + std::min(running.vm.text.size(), kSlotTextMax) + 8;
    if (out.size() + needed > kSlotBytes) break;
    put_text(out, running.vm.text);
    put(out, running.epoch.number);
    ++listed;
  }
  put_at(out, listed_at, listed);
  put_at(out, kLengthAt, static_cast<std::uint32_t>(out.size()));
  put_at(out, kCrcAt, crc32(std::string_view(out).substr(kCoveredFrom)));
  out.resize(kSlotBytes, '\0');
  return out;
}

Result<Slot> decode_slot(std::string_view bytes) {
  const Error damaged{Code::corrupt,
                      "The heartbeat slot is torn or damaged; its host's next heartbeat replaces it."};
  if (bytes.size() < kSlotBytes || !bytes.starts_with(kMagic)) return damaged;
  Reader header(bytes.substr(kCrcAt));
  const auto crc = header.number<std::uint32_t>();
  const auto version = header.number<std::uint32_t>();
  const auto length = header.number<std::uint32_t>();
  if (length < kCoveredFrom || length > kSlotBytes) return damaged;
  if (crc32(bytes.substr(kCoveredFrom, length - kCoveredFrom)) != crc) return damaged;
  if (version != kSlotVersion) {
    return Error{Code::unsupported, "The heartbeat slot was written by another version of Holdfast."};
  }
  Reader in(bytes.substr(kLengthAt + 4, length - kLengthAt - 4));
  Slot slot;
  slot.stopped_all = (in.number<std::uint32_t>() & kStoppedAll) != 0;
  slot.sequence = in.number<std::uint64_t>();
  slot.wall = static_cast<WallMs>(in.number<std::uint64_t>());
  slot.host = HostId(in.text());
  slot.session = SessionId(in.text());
  slot.incarnation = in.text();
  slot.running_total = in.number<std::uint32_t>();
  const auto listed = in.number<std::uint16_t>();
  for (int i = 0; i < listed && in.ok(); ++i) {
    VmId vm(in.text());
    slot.running.push_back({std::move(vm), Epoch{in.number<std::uint64_t>()}});
  }
  if (!in.ok() || slot.running.size() > slot.running_total) return damaged;
  return slot;
}

std::uint64_t slot_fingerprint(std::string_view bytes) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return hash;
}

}  // namespace hf::ha
