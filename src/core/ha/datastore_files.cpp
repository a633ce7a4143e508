#include "core/ha/datastore_files.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/crc32.hpp"

namespace hf::ha {
using nlohmann::json;

namespace {
constexpr int kFormat = 1;

std::string dump(const json& j) { return j.dump(-1, ' ', false, json::error_handler_t::replace); }

json parse(const std::string& text) {
  json j = json::parse(text);
  const int format = j.at("format").get<int>();
  if (format != kFormat) throw json::other_error::create(501, fmt::format("format {}", format), nullptr);
  return j;
}
}  // namespace

std::string encode_marker(const DatastoreMarker& marker) {
  return dump(json{{"format", kFormat},
                   {"id", marker.id.text},
                   {"name", marker.name},
                   {"created", marker.created}}) +
         "\n";
}

Result<DatastoreMarker> decode_marker(const std::string& text) {
  try {
    const json j = parse(text);
    DatastoreMarker marker{DatastoreId(j.at("id").get<std::string>()), j.at("name").get<std::string>(),
                           j.at("created").get<WallMs>()};
    if (marker.id.empty()) return Error{Code::corrupt, "The datastore marker has an empty id."};
    return marker;
  } catch (const json::exception& problem) {
    return Error{Code::corrupt, fmt::format("The datastore marker cannot be read: {}.", problem.what())};
  }
}

std::string encode_owner_file(const OwnerFile& owner) {
  const std::string line = dump(json{{"format", kFormat},
                                     {"vm", owner.vm.text},
                                     {"host", owner.host.text},
                                     {"session", owner.session.text},
                                     {"epoch", owner.epoch.number},
                                     {"spec", json::parse(vm::to_json(owner.spec))}});
  return fmt::format("{}\ncrc32 {:08x}\n", line, crc32(line));
}

Result<OwnerFile> decode_owner_file(const std::string& text) {
  const std::size_t end = text.find('\n');
  if (end == std::string::npos) return Error{Code::corrupt, "The owner file has no checksum line."};
  const std::string line = text.substr(0, end);
  if (text.substr(end + 1) != fmt::format("crc32 {:08x}\n", crc32(line))) {
    return Error{Code::corrupt, "The owner file fails its checksum."};
  }
  try {
    const json j = parse(line);
    TRY_ASSIGN(vm::VmSpec spec, vm::spec_from_json(j.at("spec").dump()));
    return OwnerFile{VmId(j.at("vm").get<std::string>()), HostId(j.at("host").get<std::string>()),
                     SessionId(j.at("session").get<std::string>()), Epoch{j.at("epoch").get<std::uint64_t>()},
                     std::move(spec)};
  } catch (const json::exception& problem) {
    return Error{Code::corrupt, fmt::format("The owner file cannot be read: {}.", problem.what())};
  }
}

Status may_replace(const OwnerFile& standing, const OwnerFile& mine) {
  // safety (one owner): epochs never fall, and one epoch belongs to one host.
  const bool newer = standing.epoch > mine.epoch;
  const bool another = standing.epoch == mine.epoch && standing.host != mine.host;
  if (!newer && !another) return {};
  return Error{
      Code::conflict,
      fmt::format(
          "The datastore says that host {} owns VM {} with epoch {}, the store says host {} with epoch "
          "{}. Was the store restored from a backup, or does another cluster use this datastore? Make "
          "sure the VM runs nowhere, then remove its owner file.",
          standing.host.text, mine.vm.text, standing.epoch.number, mine.host.text, mine.epoch.number)};
}

}  // namespace hf::ha
