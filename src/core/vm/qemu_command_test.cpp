// Goal: the command line is reviewed as text. tests/golden/qemu_command holds one argument a line;
// HF_REWRITE=1 writes them anew, and the reviewer reads the difference. That QEMU takes them is tested in
// sys/image.
#include "core/vm/qemu_command.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>

namespace hf::vm {
namespace {

LaunchContext context_of(const VmSpec& spec) {
  LaunchContext context;
  context.run_dir = "/run/holdfast/vms/vm-1";
  context.vm_id = "vm-1";
  context.uuid = "00000000-0000-8000-8000-000000000001";
  for (const Disk& disk : spec.disks) {
    context.disks.push_back({disk.name, "/ds/vm-1/" + disk.name, disk.format, true, false, false, false});
  }
  for (const Cdrom& cdrom : spec.cdroms) {
    context.disks.push_back({cdrom.name, "/ds/" + cdrom.image, DiskFormat::raw, true, true, true, false});
  }
  if (spec.cloud_init) {
    context.disks.push_back(
        {std::string(kSeedName), "/ds/vm-1/seed.iso", DiskFormat::raw, true, true, false, false});
  }
  int fd = 10;
  for (const Nic& nic : spec.nics) context.nics.push_back({nic.mac, nic.model, fd++});
  return context;
}

void expect_golden(const std::string& name, const Result<std::vector<std::string>>& argv) {
  ASSERT_TRUE(argv.ok()) << argv.error().what;
  std::string text;
  for (const std::string& argument : *argv) text += argument + "\n";
  const std::string path = HF_SOURCE_DIR "/tests/golden/qemu_command/" + name + ".txt";
  if (std::getenv("HF_REWRITE") != nullptr) std::ofstream(path) << text;
  std::stringstream golden;
  golden << std::ifstream(path).rdbuf();
  EXPECT_EQ(text, golden.str()) << "HF_REWRITE=1 writes " << path << " anew.";
}

VmSpec named(const std::string& name) {
  VmSpec spec;
  spec.name = name;
  spec.datastore = "a";
  return spec;
}

TEST(QemuCommand, direct_kernel_is_as_in_its_file) {
  VmSpec spec = named("probe");
  spec.disks = {{"data", "", 1 << 20, DiskFormat::raw, ""}};
  spec.nics = {{"vm", NicModel::virtio, "52:54:00:00:00:01"}};
  spec.direct_kernel = DirectKernel{"/k", "a:i", "console=ttyS0, quiet"};
  LaunchContext context = context_of(spec);
  context.kernel = "/boot/k";
  context.initrd = "/ds/i";
  expect_golden("direct_kernel", qemu_command(spec, context));
}

TEST(QemuCommand, incoming_vm_differs_only_in_that_it_waits) {
  VmSpec spec = named("probe");
  spec.disks = {{"data", "", 1 << 20, DiskFormat::raw, ""}};
  LaunchContext context = context_of(spec);
  auto booting = *qemu_command(spec, context);
  context.incoming = true;
  auto waiting = qemu_command(spec, context);
  expect_golden("incoming", waiting);
  const auto at = std::find(booting.begin(), booting.end(), "migration.send-configuration=off");
  ASSERT_NE(at, booting.end());
  booting.insert(at + 1, {"-incoming", "defer"});
  EXPECT_EQ(*waiting, booting);
}

TEST(QemuCommand, cloud_image_under_kvm_is_as_in_its_file) {
  VmSpec spec = named("web");
  spec.vcpus = 2;
  spec.memory_mib = 2048;
  spec.disks = {{"root", "", 1 << 20, DiskFormat::qcow2, ""}, {"log", "", 1 << 20, DiskFormat::qcow2, ""}};
  spec.nics = {{"vm", NicModel::virtio, "52:54:00:00:00:01"}};
  spec.boot_order = {"root"};
  spec.cloud_init = CloudInit{};
  LaunchContext context = context_of(spec);
  context.accelerator = Accelerator::kvm;
  context.disks[1].block_device = true;
  context.disks[0].direct_io = false;
  expect_golden("cloud_image", qemu_command(spec, context));
}

TEST(QemuCommand, uefi_with_cdrom_is_as_in_its_file) {
  VmSpec spec = named("installer");
  spec.firmware = Firmware::uefi;
  spec.cpu_model = "Nehalem-v1";
  spec.disks = {{"system", "", 1 << 20, DiskFormat::qcow2, ""}};
  spec.cdroms = {{"install", "a:x,y.iso"}};
  spec.nics = {{"vm", NicModel::virtio, "52:54:00:00:00:01"}, {"vm", NicModel::e1000, "52:54:00:00:00:02"}};
  spec.boot_order = {"network", "install", "system"};
  LaunchContext context = context_of(spec);
  context.run_dir = "/run/a,b";
  context.firmware_code = "/usr/share/OVMF/OVMF_CODE_4M.fd";
  context.firmware_vars = "/ds/vm-1/vars.fd";
  expect_golden("uefi_cdrom", qemu_command(spec, context));
}

TEST(QemuCommand, no_two_devices_share_a_place_in_the_fullest_vm) {
  VmSpec spec = named("full");
  for (int i = 0; i < 32; ++i)
    spec.disks.push_back({"d" + std::to_string(i), "", 1 << 20, DiskFormat::raw, ""});
  for (int i = 0; i < 5; ++i) spec.cdroms.push_back({"c" + std::to_string(i), "a:b"});
  for (int i = 0; i < 16; ++i)
    spec.nics.push_back({"vm", NicModel::virtio, "52:54:00:00:00:" + std::to_string(10 + i)});
  spec.cloud_init = CloudInit{};
  ASSERT_TRUE(validate(spec).ok());
  auto argv = qemu_command(spec, context_of(spec));
  ASSERT_TRUE(argv.ok());
  std::multiset<std::string> places;
  for (const std::string& argument : *argv) {
    auto part = [&](const std::string& key) {
      auto at = argument.find("\"" + key + "\":\"");
      return at == std::string::npos ? "" : argument.substr(at, argument.find('"', at + key.size() + 4) - at);
    };
    if (argument.starts_with("{") && !part("addr").empty()) places.insert(part("bus") + " " + part("addr"));
  }
  EXPECT_EQ(places.size(), 3U + 32U + 16U + 24U);  // rng, serial, seed; disks; nics; root ports
  for (const std::string& place : places) EXPECT_EQ(places.count(place), 1U) << place;
}

TEST(QemuCommand, adding_a_disk_moves_no_other_device) {
  VmSpec spec = named("web");
  spec.disks = {{"root", "", 1 << 20, DiskFormat::raw, ""}};
  spec.nics = {{"vm", NicModel::virtio, "52:54:00:00:00:01"}};
  spec.boot_order = {"root"};
  auto before = qemu_command(spec, context_of(spec));
  spec.disks.push_back({"more", "", 1 << 20, DiskFormat::raw, ""});
  auto after = qemu_command(spec, context_of(spec));
  std::multiset<std::string> now(after->begin(), after->end());
  for (const std::string& argument : *before) EXPECT_EQ(now.count(argument) > 0, true) << argument;
}

TEST(QemuCommand, what_cannot_run_here_is_refused_with_the_reason) {
  VmSpec spec = named("web");
  spec.cpu_model = "host";
  EXPECT_EQ(qemu_command(spec, context_of(spec)).code(), Code::unsupported);
  spec.cpu_model = "";
  spec.firmware = Firmware::uefi;
  EXPECT_EQ(qemu_command(spec, context_of(spec)).error().what,
            "The VM wants UEFI, which this host does not have. Install the package ovmf.");
  spec.firmware = Firmware::bios;
  LaunchContext context = context_of(spec);
  context.run_dir = "/" + std::string(100, 'x');
  EXPECT_EQ(qemu_command(spec, context).code(), Code::unsupported);
  spec.nics = {{"vm", NicModel::virtio, ""}};
  EXPECT_EQ(qemu_command(spec, LaunchContext{}).code(), Code::invalid);
}

}  // namespace
}  // namespace hf::vm
