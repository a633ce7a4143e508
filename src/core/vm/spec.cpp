#include "core/vm/spec.hpp"

#include <nlohmann/json.hpp>

#include "core/vm/spec_names.hpp"
#include "core/vm/spec_problem.hpp"

namespace hf::vm {
using nlohmann::json;

namespace {
json devices_of(const VmSpec& spec, json j) {
  for (const Disk& disk : spec.disks) {
    j["disks"].push_back({{"name", disk.name},
                          {"datastore", disk.datastore},
                          {"size_bytes", disk.size_bytes},
                          {"format", name_in(kFormatNames, disk.format)},
                          {"import_from", disk.import_from}});
    if (!disk.tag.empty()) j["disks"].back()["tag"] = disk.tag;
  }
  for (const Cdrom& cdrom : spec.cdroms)
    j["cdroms"].push_back({{"name", cdrom.name}, {"image", cdrom.image}});
  for (const Nic& nic : spec.nics) {
    j["nics"].push_back(
        {{"network", nic.network}, {"model", name_in(kNicModelNames, nic.model)}, {"mac", nic.mac}});
  }
  return j;
}
}  // namespace

std::string to_json(const VmSpec& spec) {
  json j = {{"version", VmSpec::kVersion},
            {"name", spec.name},
            {"description", spec.description},
            {"vcpus", spec.vcpus},
            {"memory_mib", spec.memory_mib},
            {"firmware", name_in(kFirmwareNames, spec.firmware)},
            {"machine", spec.machine},
            {"cpu_model", spec.cpu_model},
            {"datastore", spec.datastore},
            {"disks", json::array()},
            {"cdroms", json::array()},
            {"nics", json::array()},
            {"boot_order", spec.boot_order},
            {"direct_kernel", nullptr},
            {"cloud_init", nullptr},
            {"guest_agent", spec.guest_agent},
            {"stop_timeout_seconds", spec.stop_timeout_seconds},
            {"ha",
             {{"priority", name_in(kPriorityNames, spec.ha.priority)},
              {"max_crash_restarts", spec.ha.max_crash_restarts}}}};
  if (!spec.home_tag.empty()) j["home_tag"] = spec.home_tag;
  if (spec.direct_kernel) {
    j["direct_kernel"] = {{"kernel", spec.direct_kernel->kernel},
                          {"initrd", spec.direct_kernel->initrd},
                          {"cmdline", spec.direct_kernel->cmdline}};
  }
  if (spec.cloud_init) {
    j["cloud_init"] = {{"user_data", spec.cloud_init->user_data},
                       {"meta_data", spec.cloud_init->meta_data},
                       {"network_config", spec.cloud_init->network_config}};
  }
  return devices_of(spec, std::move(j)).dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<VmSpec> spec_from_json(const std::string& text) {
  json tree = json::parse(text, nullptr, false);
  if (tree.is_discarded()) return Error{Code::invalid, "The VM spec is not valid JSON."};
  SpecReading reading = read_spec(tree, Dialect::json);
  if (!reading.problems.empty()) return Error{Code::invalid, described(reading.problems)};
  return std::move(reading.spec);
}

}  // namespace hf::vm
