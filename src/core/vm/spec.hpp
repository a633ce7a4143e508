#pragma once
// VmSpec: what the user asked for, parsed from the TOML spec file (doc/vm-spec.md) and kept as JSON in the
// store. Parsing (spec_toml.hpp) reports every mistake with its line and column; a VmSpec that exists has
// passed them. All sizes are in bytes unless the name says otherwise.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace hf::vm {

// The name of the cloud-init seed among a VM's disks: reserved, so that no disk of the spec takes it.
inline constexpr std::string_view kSeedName = "cloud-init";

enum class Firmware { bios, uefi };
enum class DiskFormat { raw, qcow2 };
enum class NicModel { virtio, e1000 };
// Order in which the leader restarts after a failure; `disabled`: not protected by HA.
enum class RestartPriority { highest, high, medium, low, lowest, disabled };

struct Disk {
  std::string name;              // "root": unique within the VM; relocation.hpp says which file the image is
  std::string datastore;         // datastore name; empty: the VM's default datastore
  std::uint64_t size_bytes = 0;  // 0 only with `import_from`: the size of the source
  DiskFormat format = DiskFormat::qcow2;
  std::string import_from;  // absolute path of an image on the host that creates the VM; copied once
  std::string tag = {};     // of the relocation that made the image; never the user's word
  bool operator==(const Disk&) const = default;
};

struct Cdrom {
  std::string name;
  std::string image;  // "<datastore>:<path below it>"
  bool operator==(const Cdrom&) const = default;
};

struct Nic {
  std::string network;  // network name
  NicModel model = NicModel::virtio;
  std::string mac;  // "52:54:00:..."; generated when the VM is created, if the spec has none
  bool operator==(const Nic&) const = default;
};

struct DirectKernel {
  std::string kernel;  // "<datastore>:<path>" or an absolute path that every host has
  std::string initrd;
  std::string cmdline;
  bool operator==(const DirectKernel&) const = default;
};

struct CloudInit {
  std::string user_data;       // contents, not a path
  std::string meta_data;       // generated from the VM's name when empty
  std::string network_config;  // optional
  bool operator==(const CloudInit&) const = default;
};

struct HaPolicy {
  RestartPriority priority = RestartPriority::medium;
  int max_crash_restarts = 3;  // restarts in place within 10 minutes, before the leader may try another host
  bool operator==(const HaPolicy&) const = default;
};

struct VmSpec {
  static constexpr int kVersion = 1;

  std::string name;
  std::string description;
  int vcpus = 1;
  std::uint64_t memory_mib = 512;
  Firmware firmware = Firmware::bios;
  std::string machine;    // empty: the version this release pins (qemu_command.hpp)
  std::string cpu_model;  // empty: the baseline this release pins; "host" and "max" only if asked
  std::string datastore;  // default for disks, and where the VM's own folder is; empty: no disk at all
  std::string home_tag;   // as Disk::tag, of what else the VM has in that folder
  std::vector<Disk> disks;
  std::vector<Cdrom> cdroms;
  std::vector<Nic> nics;
  std::vector<std::string> boot_order;  // disk names, cdrom names, "network"; empty: disks, cdroms, network
  std::optional<DirectKernel> direct_kernel;
  std::optional<CloudInit> cloud_init;
  bool guest_agent = true;
  int stop_timeout_seconds = 60;  // graceful stop, then forced
  HaPolicy ha;
  bool operator==(const VmSpec&) const = default;

  bool is_protected() const { return ha.priority != RestartPriority::disabled; }
};

// "512 MiB", "10 GiB", "1 TiB" as MiB: how people write sizes, in the spec file and elsewhere.
Result<std::uint64_t> parse_mib(const std::string& text);

// JSON of the store and of the REST API; from_json checks everything that the TOML parser does, and names the
// JSON path of each mistake ("disks[0].name: ..."). Keys it does not know are refused, unless a later
// `version` says they may be there.
std::string to_json(const VmSpec& spec);
Result<VmSpec> spec_from_json(const std::string& text);

// What can be wrong with a spec as a whole: limits, names, duplicates, references. Code::invalid, one line a
// mistake.
Status validate(const VmSpec& spec);

}  // namespace hf::vm
