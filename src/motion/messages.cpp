#include "motion/messages.hpp"

#include <algorithm>
#include <array>
#include <concepts>
#include <nlohmann/json.hpp>
#include <optional>

namespace hf::motion {
namespace {
using nlohmann::json;

template <class Enum>
struct Names;
template <>
struct Names<engine::Encryption> {
  static constexpr std::array<std::string_view, 3> all = {"off", "opportunistic", "required"};
};
template <>
struct Names<Engine> {
  static constexpr std::array<std::string_view, 2> all = {"holdfast", "qemu"};
};
template <>
struct Names<Phase> {
  static constexpr std::array<std::string_view, 4> all = {"connecting", "disks", "copying", "stopping"};
};
template <>
struct Names<Guest> {
  static constexpr std::array<std::string_view, 3> all = {"runs", "stopped", "none"};
};

class Writer {
 public:
  explicit Writer(std::string_view type) : object_({{"type", type}}) {}
  void operator()(const char* name, const std::string& value) { object_[name] = value; }
  void operator()(const char* name, const std::vector<std::string>& value) { object_[name] = value; }
  void operator()(const char* name, const std::vector<IncomingDisk>& value) {
    json& list = object_[name] = json::array();
    for (const auto& disk : value) list.push_back({{"name", disk.name}, {"path", disk.path}, {"format", disk.format}});
  }
  void operator()(const char* name, const bool& value) { object_[name] = value; }
  void operator()(const char* name, const std::uint64_t& value) { object_[name] = value; }
  void operator()(const char* name, const Duration& value) { object_[name] = value.count(); }
  void operator()(const char* name, const Code& value) { object_[name] = info(value).name; }
  template <class Tag>
  void operator()(const char* name, const TextId<Tag>& value) {
    object_[name] = value.text;
  }
  template <class Enum>
    requires std::is_enum_v<Enum>
  void operator()(const char* name, const Enum& value) {
    object_[name] = Names<Enum>::all.at(static_cast<std::size_t>(value));
  }
  std::string line() const { return object_.dump(-1, ' ', false, json::error_handler_t::replace) + "\n"; }

 private:
  json object_;
};

// Takes members out of an object; the first mistake counts.
class Reader {
 public:
  explicit Reader(json object) : object_(std::move(object)) {}
  void operator()(const char* name, std::string& value) {
    if (const json* member = take(name, json::value_t::string)) value = member->get<std::string>();
  }
  void operator()(const char* name, std::vector<std::string>& value) {
    const json* member = take(name, json::value_t::array);
    if (member == nullptr) return;
    for (const json& each : *member) {
      if (!each.is_string()) return refuse(name, "has the wrong type");
      value.push_back(each.get<std::string>());
    }
  }
  void operator()(const char* name, std::vector<IncomingDisk>& value) {
    const json* member = take(name, json::value_t::array);
    if (member == nullptr) return;
    for (const json& each : *member) {
      if (!each.is_object()) return refuse(name, "has the wrong type");
      Reader reader(each);
      IncomingDisk disk;
      reader("name", disk.name);
      reader("path", disk.path);
      reader("format", disk.format);
      if (!reader.finish().ok()) return refuse(name, "has a wrong member");
      value.push_back(std::move(disk));
    }
  }
  void operator()(const char* name, bool& value) {
    if (const json* member = take(name, json::value_t::boolean)) value = member->get<bool>();
  }
  void operator()(const char* name, std::uint64_t& value) {
    if (const json* member = take(name, json::value_t::number_unsigned)) value = member->get<std::uint64_t>();
  }
  void operator()(const char* name, Duration& value) {
    std::uint64_t count = 0;
    (*this)(name, count);
    if (count > static_cast<std::uint64_t>(Duration::max().count())) return refuse(name, "is too long");
    value = Duration(static_cast<Duration::rep>(count));
  }
  void operator()(const char* name, Code& value) {
    std::string text;
    (*this)(name, text);
    value = code_named(text);
    if (!problem_ && info(value).name != text) refuse(name, "is no code");
  }
  template <class Tag>
  void operator()(const char* name, TextId<Tag>& value) {
    (*this)(name, value.text);
  }
  template <class Enum>
    requires std::is_enum_v<Enum>
  void operator()(const char* name, Enum& value) {
    std::string text;
    (*this)(name, text);
    const auto& all = Names<Enum>::all;
    const auto found = std::find(all.begin(), all.end(), text);
    if (found == all.end()) return refuse(name, "has an unknown value");
    value = static_cast<Enum>(found - all.begin());
  }
  Status finish() {
    if (!problem_ && taken_ != object_.size()) problem_ = "it has members that do not belong to it";
    if (!problem_) return {};
    return Error{Code::invalid, "A message of the motion process is wrong: " + *problem_ + "."};
  }

 private:
  const json* take(const char* name, json::value_t type) {
    ++taken_;
    const auto found = object_.find(name);
    if (found != object_.end() && found->type() == type) return &*found;
    refuse(name, found == object_.end() ? "is missing" : "has the wrong type");
    return nullptr;
  }
  void refuse(const char* name, std::string_view what) {
    if (!problem_) problem_ = std::string("\"") + name + "\" " + std::string(what);
  }

  const json object_;
  std::size_t taken_ = 0;
  std::optional<std::string> problem_;
};

template <class T, class U>
concept Is = std::same_as<std::remove_const_t<T>, U>;

// The members of each message, once for both directions.
template <class Io, Is<Leg> T>
void members(Io& io, T& leg) {
  io("motion", leg.motion);
  io("vm", leg.vm);
  io("token", leg.token);
  io("peer", leg.peer);
  io("run_dir", leg.run_dir);
  io("engine", leg.engine);
  io("encryption", leg.encryption);
  io("ca", leg.ca);
  io("certificate", leg.certificate);
  io("key", leg.key);
}
template <class Io, Is<Send> T>
void members(Io& io, T& send) {
  members(io, send.leg);
  io("endpoint", send.endpoint);
  io("stop_max_ns", send.stop_max);
  io("bytes_per_second", send.bytes_per_second);
  io("stop_max_fixed", send.stop_max_fixed);
  io("disks", send.disks);
  io("room_bytes", send.room_bytes);
}
template <class Io, Is<Receive> T>
void members(Io& io, T& receive) {
  members(io, receive.leg);
  io("address", receive.address);
  io("patience_ns", receive.patience);
  io("macs", receive.macs);
  io("disks", receive.disks);
}
template <class Io, Is<Committed> T>
void members(Io& io, T& committed) {
  io("version", committed.version);
}
template <class Io, Is<Abort> T>
void members(Io& io, T& abort) {
  io("why", abort.why);
}
template <class Io, Is<Listening> T>
void members(Io& io, T& listening) {
  io("endpoint", listening.endpoint);
}
template <class Io, Is<Loaded> T>
void members(Io& io, T& loaded) {
  io("load_ns", loaded.load);
}
template <class Io, Is<Arrived> T>
void members(Io& io, T& arrived) {
  io("version", arrived.version);
}
template <class Io, Is<Progress> T>
void members(Io& io, T& progress) {
  io("phase", progress.phase);
  io("round", progress.round);
  io("pages_left", progress.pages_left);
  io("pages_all", progress.pages_all);
  io("disk_bytes_left", progress.disk_bytes_left);
  io("disk_bytes_all", progress.disk_bytes_all);
  io("bytes", progress.bytes);
  io("bytes_per_second", progress.bytes_per_second);
  io("share_percent", progress.share_percent);
  io("knows_end", progress.knows_end);
  io("time_left_ns", progress.time_left);
}
template <class Io, Is<ReadyToCommit> T>
void members(Io&, T&) {}
template <class Io, Is<Failed> T>
void members(Io& io, T& failed) {
  io("code", failed.error.code);
  io("what", failed.error.what);
  io("guest", failed.guest);
}
template <class Io, Is<Finished> T>
void members(Io& io, T& finished) {
  io("rounds", finished.rounds);
  io("zero_pages", finished.zero_pages);
  io("delta_pages", finished.delta_pages);
  io("plain_pages", finished.plain_pages);
  io("bytes", finished.bytes);
  io("state_bytes", finished.state_bytes);
  io("least_share_percent", finished.least_share_percent);
  io("took_ns", finished.took);
  io("stopped_before_ns", finished.stopped_before);
  io("disks", finished.disks);
  io("disk_bytes", finished.disk_bytes);
  io("stop_ns", finished.stop.stop);
  io("scan_ns", finished.stop.scan);
  io("save_ns", finished.stop.save);
  io("copy_ns", finished.stop.copy);
  io("load_ns", finished.stop.load);
  io("commit_ns", finished.stop.commit);
  io("tracker", finished.tracker);
}

// In the order of the variants.
constexpr std::array<std::string_view, 4> kOrders = {"send", "receive", "committed", "abort"};
constexpr std::array<std::string_view, 7> kReports = {"listening",       "loaded", "arrived", "progress",
                                                      "ready_to_commit", "failed", "finished"};

template <class Variant, std::size_t count>
std::string encode_one(const Variant& message, const std::array<std::string_view, count>& types) {
  static_assert(std::variant_size_v<Variant> == count);
  Writer writer(types.at(message.index()));
  std::visit([&](const auto& one) { members(writer, one); }, message);
  return writer.line();
}

template <class Variant, std::size_t at = 0>
Result<Variant> decode_one(json object, std::string_view type, const auto& types) {
  if constexpr (at == std::variant_size_v<Variant>) {
    return Error{Code::invalid, "A message of the motion process is of an unknown type."};
  } else {
    if (types.at(at) != type) return decode_one<Variant, at + 1>(std::move(object), type, types);
    std::variant_alternative_t<at, Variant> message;
    Reader reader(std::move(object));
    members(reader, message);
    TRY(reader.finish());
    return Variant(std::move(message));
  }
}

template <class Variant>
Result<Variant> decode_line(std::string_view line, const auto& types) {
  if (line.size() > kLineMax) return Error{Code::invalid, "A message of the motion process is too long."};
  // Depth and duplicates: the parser's last of two members of a name wins, so their number would be right; the encoder
  // of our own release makes none.
  json object = json::parse(line, nullptr, false);
  if (!object.is_object() || !object.contains("type") || !object["type"].is_string()) {
    return Error{Code::invalid, "A message of the motion process is not an object with a type."};
  }
  const std::string type = object["type"].get<std::string>();
  object.erase("type");
  return decode_one<Variant>(std::move(object), type, types);
}

}  // namespace

std::string encode(const Order& order) { return encode_one(order, kOrders); }
std::string encode(const Report& report) { return encode_one(report, kReports); }
Result<Order> decode_order(std::string_view line) { return decode_line<Order>(line, kOrders); }
Result<Report> decode_report(std::string_view line) { return decode_line<Report>(line, kReports); }

}  // namespace hf::motion
