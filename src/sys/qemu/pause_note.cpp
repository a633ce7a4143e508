#include "sys/qemu/pause_note.hpp"

#include <nlohmann/json.hpp>

#include "sys/qemu/disk_copy.hpp"

namespace hf::qemu {
namespace {
using nlohmann::json;

json parse(const std::string& text) { return json::parse(text, nullptr, false); }

std::string text_at(const json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

}  // namespace

std::optional<DiskError> disk_error_of_event(const std::string& data) {
  const json event = parse(data);
  if (!event.is_object() || text_at(event, "action") != "stop") return {};
  const auto nospace = event.find("nospace");
  return DiskError{disk_of_node(text_at(event, "node-name")),
                   nospace != event.end() && nospace->is_boolean() && nospace->get<bool>(),
                   text_at(event, "reason")};
}

DiskError disk_error_of_query(const std::string& answer) {
  const json disks = parse(answer);
  for (const json& disk : disks.is_array() ? disks : json::array()) {
    const std::string status = disk.is_object() ? text_at(disk, "io-status") : "";
    if (status != "nospace" && status != "failed") continue;
    const auto inserted = disk.find("inserted");
    const bool has_node = inserted != disk.end() && inserted->is_object();
    return {disk_of_node(has_node ? text_at(*inserted, "node-name") : ""), status == "nospace", "its I/O failed"};
  }
  return {"", false, "its I/O failed"};
}

bool is_paused_by_disk(const std::string& answer) {
  const json status = parse(answer);
  return status.is_object() && text_at(status, "status") == "io-error";
}

std::optional<VmPause> PauseNote::on_event(const std::string& event, const std::string& data) {
  if (event == "BLOCK_IO_ERROR" && !failed_) failed_ = disk_error_of_event(data);
  if (event == "STOP" && failed_) return on_answer(failed_);
  if (event == "RESUME") return on_answer(std::nullopt);
  return {};
}

std::optional<VmPause> PauseNote::on_answer(std::optional<DiskError> error) {
  const bool was_told = told_;
  failed_ = error;
  told_ = error.has_value();
  if (!was_told && !told_) return {};
  return VmPause{vm_, epoch_, std::move(error)};
}

}  // namespace hf::qemu
