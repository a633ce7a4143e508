#include "core/vm/relocation.hpp"

#include <algorithm>

#include "core/vm/spec_names.hpp"

namespace hf::vm {
namespace {

std::string tagged(const std::string& stem, const std::string& tag, std::string_view extension) {
  return stem + (tag.empty() ? "" : "." + tag) + std::string(extension);
}

std::optional<DiskFormat> format_of(const Relocation& what) {
  for (const auto& [format, name] : kFormatNames) {
    if (name == what.format) return format;
  }
  return std::nullopt;
}

std::vector<PlacedFile> files_of(const VmSpec& spec) {
  std::vector<PlacedFile> files;
  for (const auto& disk : spec.disks) files.push_back({datastore_of(disk, spec), image_file(disk)});
  if (spec.cloud_init) files.push_back({spec.datastore, seed_file(spec)});
  if (spec.firmware == Firmware::uefi) files.push_back({spec.datastore, variables_file(spec)});
  return files;
}

}  // namespace

std::string image_file(const Disk& disk) {
  return tagged(disk.name, disk.tag, disk.format == DiskFormat::raw ? ".raw" : ".qcow2");
}
std::string seed_file(const VmSpec& spec) { return tagged("seed", spec.home_tag, ".iso"); }
std::string variables_file(const VmSpec& spec) { return tagged("uefi-vars", spec.home_tag, ".fd"); }

const std::string& datastore_of(const Disk& disk, const VmSpec& spec) {
  return disk.datastore.empty() ? spec.datastore : disk.datastore;
}

Result<VmSpec> relocated(const VmSpec& before, const Relocation& what) {
  VmSpec after = before;
  const auto format = format_of(what);
  if (!what.format.empty() && !format) {
    return Error{Code::invalid, "\"" + what.format + "\" is no format of disks: raw and qcow2 are."};
  }
  const bool home = what.disk.empty();
  bool found = false, changed = home && before.datastore != what.datastore;
  if (changed) after.home_tag = what.tag;
  if (home) after.datastore = what.datastore;
  for (auto& disk : after.disks) {
    if (!home && disk.name != what.disk) continue;
    found = true;
    const bool converts = format && *format != disk.format;
    const bool moves = datastore_of(disk, before) != what.datastore;
    if (format) disk.format = *format;
    // One that follows the VM goes on following it.
    disk.datastore = what.datastore == after.datastore ? std::string() : what.datastore;
    if (!converts && !moves) continue;
    disk.tag = what.tag;
    changed = true;
  }
  if (!home && !found) return Error{Code::invalid, "VM " + before.name + " has no disk named " + what.disk + "."};
  if (changed) return after;
  const std::string subject = home ? "VM " + before.name : "Disk " + what.disk + " of VM " + before.name;
  return Error{Code::invalid, subject + " is on " + what.datastore + " already" +
                                  (format ? ", in that format" : "") + ": there is nothing to move."};
}

bool is_relocated(const VmSpec& spec, const Relocation& what) {
  return spec.home_tag == what.tag || std::any_of(spec.disks.begin(), spec.disks.end(),
                                                  [&](const auto& disk) { return disk.tag == what.tag; });
}

std::vector<PlacedFile> files_only_in(const VmSpec& spec, const VmSpec& other) {
  const auto kept = files_of(other);
  std::vector<PlacedFile> files;
  for (auto& file : files_of(spec)) {
    if (std::find(kept.begin(), kept.end(), file) == kept.end()) files.push_back(std::move(file));
  }
  return files;
}

}  // namespace hf::vm
