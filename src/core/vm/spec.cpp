#include "core/vm/spec.hpp"

#include <nlohmann/json.hpp>

namespace nlohmann {
template <class T>
struct adl_serializer<std::optional<T>> {
  static void to_json(json& j, const std::optional<T>& value) { value ? j = *value : j = nullptr; }
  static void from_json(const json& j, std::optional<T>& value) {
    if (j.is_null()) value.reset();
    else value = j.get<T>();
  }
};
}  // namespace nlohmann

namespace hf::vm {
using nlohmann::json;

NLOHMANN_JSON_SERIALIZE_ENUM(Firmware, {{Firmware::bios, "bios"}, {Firmware::uefi, "uefi"}})
NLOHMANN_JSON_SERIALIZE_ENUM(DiskFormat, {{DiskFormat::qcow2, "qcow2"}, {DiskFormat::raw, "raw"}})
NLOHMANN_JSON_SERIALIZE_ENUM(NicModel, {{NicModel::virtio, "virtio"}, {NicModel::e1000, "e1000"}})
NLOHMANN_JSON_SERIALIZE_ENUM(RestartPriority, {{RestartPriority::medium, "medium"},
                                               {RestartPriority::highest, "highest"},
                                               {RestartPriority::high, "high"},
                                               {RestartPriority::low, "low"},
                                               {RestartPriority::lowest, "lowest"},
                                               {RestartPriority::disabled, "disabled"}})
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(Disk, name, datastore, size_bytes, format, import_from)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(Cdrom, name, image)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(Nic, network, model, mac)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(DirectKernel, kernel, initrd, cmdline)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(CloudInit, user_data, meta_data, network_config)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(HaPolicy, priority, max_crash_restarts)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(VmSpec, name, description, vcpus, memory_mib, firmware, machine,
                                                cpu_model, datastore, disks, cdroms, nics, boot_order, direct_kernel,
                                                cloud_init, guest_agent, stop_timeout_seconds, ha)

std::string to_json(const VmSpec& spec) {
  json j = spec;
  j["version"] = VmSpec::kVersion;
  return j.dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<VmSpec> spec_from_json(const std::string& text) {
  try {
    return json::parse(text).get<VmSpec>();
  } catch (const json::exception& problem) {
    return Error{Code::invalid, std::string("The VM spec is not valid JSON: ") + problem.what() + "."};
  }
}

}  // namespace hf::vm
