#pragma once
// Which files a VM has on its datastores, and what of them changes when it goes to another one. Pure.
#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "core/vm/spec.hpp"

namespace hf::vm {

// All below the folder <vm-id> of their datastore.
std::string image_file(const Disk& disk);        // "root.qcow2", "root.t-2f00.raw"
std::string seed_file(const VmSpec& spec);       // "seed.iso"
std::string variables_file(const VmSpec& spec);  // "uefi-vars.fd"
// Where the disk is: its own datastore or the VM's.
const std::string& datastore_of(const Disk& disk, const VmSpec& spec);

// Disks that go to another datastore, or into another format where they are.
struct Relocation {
  std::string datastore;
  std::string format;  // "raw", "qcow2"; empty: each keeps its own
  std::string disk;    // this one only; empty: all, and what else is in the VM's folder
  std::string tag;     // of the files it makes: never used before
  bool operator==(const Relocation&) const = default;
};

// The spec afterwards. Code::invalid: it has no such disk, or all is there already.
Result<VmSpec> relocated(const VmSpec& before, const Relocation& what);
// The VM's spec is the one that this relocation made: its commit was done.
bool is_relocated(const VmSpec& spec, const Relocation& what);

struct PlacedFile {
  std::string datastore, name;
  bool operator==(const PlacedFile&) const = default;
};
// Every file that `spec` has and `other` has not.
std::vector<PlacedFile> files_only_in(const VmSpec& spec, const VmSpec& other);

}  // namespace hf::vm
