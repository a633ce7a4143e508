#include "core/vm/qemu_command.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

namespace hf::vm {
using nlohmann::json;

namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
constexpr std::size_t kSocketPathMax = 107;  // sun_path, less its NUL

// Where each device sits. Fixed places, so that a guest's names for its devices do not change when another is
// added: slots of the root bus for what most VMs have, functions of root ports (eight a slot) for the rest.
// 0x00 and 0x1f are the chipset's.
constexpr unsigned kRngSlot = 0x01, kSerialSlot = 0x02, kSeedSlot = 0x03;
constexpr unsigned kNicSlot = 0x04, kNicsOnRoot = 8;
constexpr unsigned kDiskSlot = 0x0c, kDisksOnRoot = 16;
constexpr unsigned kNicPortSlot = 0x1c, kDiskPortSlot = 0x1d;
constexpr unsigned kCdromsMax = 6;  // units of the chipset's SATA controller
constexpr unsigned kDisksMax = kDisksOnRoot + 16, kNicsMax = kNicsOnRoot + 8;

// A value within a "key=value,key=value" option: QEMU reads a doubled comma as one.
std::string comma_safe(std::string_view text) {
  std::string out;
  for (char c : text) out.append(c == ',' ? 2 : 1, c);
  return out;
}

class Command {
 public:
  Command(const VmSpec& spec, const LaunchContext& context) : spec_(spec), context_(context) {}

  Result<std::vector<std::string>> build() {
    TRY(check());
    machine();
    control();
    fixed_devices();
    TRY(disks());
    nics();
    boot();
    return std::move(argv_);
  }

 private:
  void add(std::string option) { argv_.push_back(std::move(option)); }
  void add(std::string option, std::string value) {
    argv_.push_back(std::move(option));
    argv_.push_back(std::move(value));
  }
  void add_json(std::string option, const json& value) {
    add(std::move(option), value.dump(-1, ' ', false, json::error_handler_t::replace));
  }
  bool is_tcg() const { return context_.accelerator == Accelerator::tcg; }
  bool is_uefi() const { return spec_.firmware == Firmware::uefi; }

  Status check() const {
    if (is_tcg() && spec_.cpu_model == "host") {
      return Error{Code::unsupported,
                   "The CPU model \"host\" needs KVM, which this host does not have. Take cpu_model out "
                   "of the spec to get the model that runs on every host."};
    }
    std::size_t seeds = spec_.cloud_init ? 1 : 0;
    if (context_.disks.size() != spec_.disks.size() + spec_.cdroms.size() + seeds ||
        context_.nics.size() != spec_.nics.size()) {
      return Error{Code::invalid,
                   "The launch context does not fit the VM's spec: disks or nics are missing."};
    }
    if (is_uefi() && (context_.firmware_code.empty() || context_.firmware_vars.empty())) {
      return Error{Code::unsupported,
                   "The VM wants UEFI, which this host does not have. Install the package ovmf."};
    }
    if ((context_.run_dir + "/console.sock").size() > kSocketPathMax) {
      return Error{Code::unsupported,
                   "The run directory's path " + context_.run_dir + " is too long for sockets."};
    }
    return {};
  }

  void machine() {
    add(context_.qemu_binary);
    add("-name", "guest=" + comma_safe(spec_.name) + ",debug-threads=on");
    add("-uuid", context_.uuid);
    add("-smbios", "type=1,manufacturer=Holdfast,product=VM,serial=" + comma_safe(context_.vm_id));
    std::string machine = spec_.machine.empty() ? kPinnedMachine : spec_.machine;
    machine += ",memory-backend=mem,usb=off,vmport=off,smm=off,graphics=off,dump-guest-core=off";
    if (is_uefi()) machine += ",pflash0=firmware-code,pflash1=firmware-vars";
    if (is_uefi()) firmware();
    add("-machine", machine);
    // tb-size: the default, up to 1 GiB for translated code, would outweigh many guests.
    add("-accel", is_tcg() ? "tcg,thread=multi,tb-size=128" : "kvm");
    add("-cpu", spec_.cpu_model.empty() ? kPinnedCpu : spec_.cpu_model);
    add("-smp", fmt::format("cpus={0},sockets=1,cores={0},threads=1", spec_.vcpus));
    add("-m", fmt::format("size={}M", spec_.memory_mib));
    // Shared, so that another process can track and copy guest memory later, without a restart.
    add_json("-object", json{{"qom-type", "memory-backend-memfd"},
                             {"id", "mem"},
                             {"size", spec_.memory_mib * kMiB},
                             {"share", true}});
  }

  void firmware() {
    add_json("-blockdev", json{{"node-name", "f-firmware-code"},
                               {"driver", "file"},
                               {"filename", context_.firmware_code},
                               {"read-only", true},
                               {"locking", "off"}});
    add_json("-blockdev", json{{"node-name", "firmware-code"},
                               {"driver", "raw"},
                               {"file", "f-firmware-code"},
                               {"read-only", true}});
    json file = file_node("firmware-vars", context_.firmware_vars, context_.firmware_direct_io, false);
    add_json("-blockdev", file);
    add_json("-blockdev",
             json{{"node-name", "firmware-vars"}, {"driver", "raw"}, {"file", "f-firmware-vars"}});
  }

  void control() {
    add("-nodefaults");
    add("-no-user-config");
    add("-display", "none");
    add("-S");  // safety: no instruction of the guest runs before the guard has admitted it; QMP `cont`
                // starts it
    add("-msg", "timestamp=on");
    add("-rtc", "base=utc");
    add("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    // A guest that panics ends its QEMU, and HA starts it anew; a guest that reboots stays in the same QEMU.
    add("-action", "panic=exit-failure");
    monitor("qmp");     // the daemon's
    monitor("engine");  // the memory engine's: a monitor serves one client at a time
    // The devices' state travels alone, as xen-save-devices-state writes it: without a section that names the
    // machine, which every QEMU would insist on otherwise. The same on both sides.
    add("-global", "migration.send-configuration=off");
    if (context_.incoming) add("-incoming", "defer");
    // logappend: the daemon may cut the log short while QEMU has it open.
    socket("console", ",logfile=" + comma_safe(context_.run_dir) + "/console.log,logappend=on");
    add_json("-device", json{{"driver", "isa-serial"}, {"chardev", "console"}});
    socket("agent", "");
  }

  void monitor(const std::string& name) {
    socket(name, "");
    add("-mon", "chardev=" + name + ",mode=control");
  }

  void socket(std::string_view name, const std::string& more) {
    add("-chardev", fmt::format("socket,id={0},path={1}/{0}.sock,server=on,wait=off{2}", name,
                                comma_safe(context_.run_dir), more));
  }

  void fixed_devices() {
    add_json("-device", json{{"driver", "virtio-serial-pci"},
                             {"id", "serial0"},
                             {"bus", "pcie.0"},
                             {"addr", addr(kSerialSlot)}});
    add_json("-device", json{{"driver", "virtserialport"},
                             {"bus", "serial0.0"},
                             {"chardev", "agent"},
                             {"name", "org.qemu.guest_agent.0"}});
    add_json("-object", json{{"qom-type", "rng-builtin"}, {"id", "rng0"}});
    add_json(
        "-device",
        json{{"driver", "virtio-rng-pci"}, {"rng", "rng0"}, {"bus", "pcie.0"}, {"addr", addr(kRngSlot)}});
    add_json("-device", json{{"driver", "pvpanic"}});
  }

  static std::string addr(unsigned slot, unsigned function = 0) {
    return fmt::format("{:#04x}.{}", slot, function);
  }

  // Puts a device in its place; behind a root port, which it makes, where the place is not on the root bus.
  void place(json& device, unsigned index, unsigned on_root, unsigned slot, unsigned port_slot) {
    if (index < on_root) {
      device["bus"] = "pcie.0";
      device["addr"] = addr(slot + index);
      return;
    }
    unsigned port_index = index - on_root;
    unsigned port = port_slot + port_index / 8, function = port_index % 8;
    std::string id = fmt::format("port-{:02x}.{}", port, function);
    json root_port = {
        {"driver", "pcie-root-port"},
        {"id", id},
        {"bus", "pcie.0"},
        {"addr", addr(port, function)},
        {"chassis", port * 8 + function - kNicPortSlot * 8 + 1},
        {"io-reserve", 0}};  // modern virtio needs no I/O ports, and there are too few for 24 windows
    if (function == 0) root_port["multifunction"] = true;
    add_json("-device", root_port);
    device["bus"] = id;
    device["addr"] = "0x00";
  }

  // The node that does the I/O.
  // locking off: a frozen owner would keep its locks and bar the host that took over; the ownership epoch
  // replaces them. aio threads: the shim that holds late writes sees the C library's calls, not io_uring's or
  // the kernel's own AIO.
  static json file_node(std::string_view name, const std::string& path, bool direct, bool block_device) {
    return json{{"node-name", "f-" + std::string(name)},
                {"driver", block_device ? "host_device" : "file"},
                {"filename", path},
                {"locking", "off"},
                {"aio", "threads"},
                {"cache", {{"direct", direct}, {"no-flush", false}}},
                {"discard", "unmap"}};
  }

  // file or host_device node f-<name>, under the format's node q-<name>, under a raw node d-<name> that does
  // nothing but let what is below it be exchanged while the guest runs.
  void nodes(const ResolvedDisk& disk) {
    json file = file_node(disk.name, disk.path, disk.direct_io, disk.block_device);
    json format = {{"node-name", "q-" + disk.name},
                   {"driver", disk.format == DiskFormat::qcow2 ? "qcow2" : "raw"},
                   {"file", "f-" + disk.name},
                   {"cache", {{"direct", disk.direct_io}, {"no-flush", false}}},
                   {"discard", "unmap"}};
    json top = {
        {"node-name", "d-" + disk.name}, {"driver", "raw"}, {"file", "q-" + disk.name}, {"discard", "unmap"}};
    for (json* node : {&file, &format, &top}) {
      if (disk.read_only || disk.cdrom) (*node)["read-only"] = true;
      add_json("-blockdev", *node);
    }
  }

  // The place of a device in the boot order, or 0. It counts from 1, because the direct kernel's loader takes
  // 0, and in steps that leave room for all the nics that "network" stands for.
  unsigned boot_index(std::string_view name) const {
    auto found = std::find(order_.begin(), order_.end(), name);
    return found == order_.end() ? 0 : static_cast<unsigned>(found - order_.begin()) * kNicsMax + 1;
  }

  void find_order() {
    order_ = spec_.boot_order;
    if (!order_.empty()) return;
    for (const Disk& disk : spec_.disks) order_.push_back(disk.name);
    for (const Cdrom& cdrom : spec_.cdroms) order_.push_back(cdrom.name);
    if (!spec_.nics.empty()) order_.push_back("network");
  }

  Status disks() {
    find_order();
    unsigned disk_count = 0, cdrom_count = 0;
    std::set<std::string_view> names;
    for (const ResolvedDisk& disk : context_.disks) {
      if (!names.insert(disk.name).second)
        return Error{Code::invalid, "The disk " + disk.name + " is there twice."};
      nodes(disk);
      json device = {
          {"drive", "d-" + disk.name}, {"id", "disk-" + disk.name}, {"rerror", "stop"}, {"werror", "stop"}};
      if (unsigned index = boot_index(disk.name)) device["bootindex"] = index;
      if (disk.cdrom) {
        if (cdrom_count == kCdromsMax)
          return Error{Code::unsupported, "The VM has more cdroms than QEMU can attach."};
        device["driver"] = "ide-cd";
        device["bus"] = fmt::format("ide.{}", cdrom_count++);
      } else {
        device["driver"] = "virtio-blk-pci";
        device["serial"] = disk.name.substr(0, 20);
        if (disk.name == kSeedName) {
          device["bus"] = "pcie.0";
          device["addr"] = addr(kSeedSlot);
        } else {
          if (disk_count == kDisksMax)
            return Error{Code::unsupported, "The VM has more disks than QEMU can attach."};
          place(device, disk_count++, kDisksOnRoot, kDiskSlot, kDiskPortSlot);
        }
      }
      add_json("-device", device);
    }
    return {};
  }

  void nics() {
    const unsigned first = boot_index("network");
    for (unsigned i = 0; i < std::min<std::size_t>(context_.nics.size(), kNicsMax); ++i) {
      const ResolvedNic& nic = context_.nics[i];
      add("-netdev", fmt::format("tap,id=net{},fd={},vhost=off", i, nic.tap_fd));
      json device = {{"driver", nic.model == NicModel::virtio ? "virtio-net-pci" : "e1000"},
                     {"id", fmt::format("nic{}", i)},
                     {"netdev", fmt::format("net{}", i)},
                     {"mac", nic.mac}};
      // Without the boot ROM where it would only cost time.
      if (first == 0 || spec_.direct_kernel)
        device["romfile"] = "";
      else
        device["bootindex"] = first + i;
      place(device, i, kNicsOnRoot, kNicSlot, kNicPortSlot);
      add_json("-device", device);
    }
  }

  void boot() {
    add("-boot", "strict=on,menu=off");
    if (!spec_.direct_kernel) return;
    add("-kernel", context_.kernel);
    if (!context_.initrd.empty()) add("-initrd", context_.initrd);
    if (!spec_.direct_kernel->cmdline.empty()) add("-append", spec_.direct_kernel->cmdline);
  }

  const VmSpec& spec_;
  const LaunchContext& context_;
  std::vector<std::string> argv_;
  std::vector<std::string> order_;
};

}  // namespace

Result<std::vector<std::string>> qemu_command(const VmSpec& spec, const LaunchContext& context) {
  return Command(spec, context).build();
}

}  // namespace hf::vm
