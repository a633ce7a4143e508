// Whatever the two readers of a spec accept is valid, survives being written and read again, and has a
// command line.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/ensure.hpp"
#include "core/vm/qemu_command.hpp"
#include "core/vm/spec.hpp"
#include "core/vm/spec_toml.hpp"

namespace hf::vm {
namespace {

void build_command(const VmSpec& spec) {
  LaunchContext context;
  context.run_dir = "/run/holdfast/vms/vm-1";
  context.vm_id = "vm-1";
  for (const Disk& disk : spec.disks) context.disks.push_back({disk.name, "/ds/" + disk.name, disk.format});
  for (const Cdrom& cdrom : spec.cdroms) {
    context.disks.push_back({cdrom.name, "/ds/" + cdrom.image, DiskFormat::raw, true, true, true});
  }
  if (spec.cloud_init)
    context.disks.push_back({std::string(kSeedName), "/ds/seed", DiskFormat::raw, true, true});
  for (const Nic& nic : spec.nics) context.nics.push_back({nic.mac, nic.model, 3});
  if (spec.direct_kernel) context.kernel = spec.direct_kernel->kernel;
  context.firmware_code = "/ovmf";
  context.firmware_vars = "/ds/vars";
  context.accelerator = spec.cpu_model == "host" ? Accelerator::kvm : Accelerator::tcg;
  ENSURE(qemu_command(spec, context).ok(), "a valid spec has a command line");
}

void examine(const VmSpec& spec) {
  ENSURE(validate(spec).ok(), "what was read is valid");
  auto from_toml = parse_spec(to_toml(spec), "written.toml");
  ENSURE(from_toml.ok() && *from_toml == spec, "TOML that was written is read back the same");
  auto from_json = spec_from_json(to_json(spec));
  ENSURE(from_json.ok() && *from_json == spec, "JSON that was written is read back the same");
  build_command(spec);
}

}  // namespace
}  // namespace hf::vm

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  if (auto spec = hf::vm::parse_spec(text, "fuzz.toml"); spec.ok()) hf::vm::examine(*spec);
  if (auto spec = hf::vm::spec_from_json(text); spec.ok()) hf::vm::examine(*spec);
  return 0;
}
