#pragma once
// The two text files Holdfast keeps on a datastore, as bytes: the marker `.holdfast/datastore.json`, which
// says which datastore this is whatever path it is mounted at, and the owner file `.holdfast/vms/<vm>.owner`,
// which confirms the store's word about who runs a VM. Pure; the files are sys/datastore's. doc/formats.md
// "Datastore marker", "Owner file".
#include <string>

#include "base/ids.hpp"
#include "base/result.hpp"
#include "base/time.hpp"
#include "core/vm/spec.hpp"

namespace hf::ha {

struct DatastoreMarker {
  DatastoreId id;
  std::string name;
  WallMs created = 0;
  bool operator==(const DatastoreMarker&) const = default;
};

struct OwnerFile {
  VmId vm;
  HostId host;
  SessionId session;
  Epoch epoch;
  vm::VmSpec spec;  // so that a cluster whose store was lost can be rebuilt
  bool operator==(const OwnerFile&) const = default;
};

std::string encode_marker(const DatastoreMarker& marker);
Result<DatastoreMarker> decode_marker(const std::string& text);

// One line of JSON and one line "crc32 <8 hex digits>" over it.
std::string encode_owner_file(const OwnerFile& owner);
// Code::corrupt: torn or damaged.
Result<OwnerFile> decode_owner_file(const std::string& text);

// safety (one owner): may `mine` replace what stands on the datastore? Code::conflict: a larger epoch, or the
// same epoch of another host stands there: the store was rolled back, or another cluster has the VM.
Status may_replace(const OwnerFile& standing, const OwnerFile& mine);

}  // namespace hf::ha
