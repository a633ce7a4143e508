#pragma once
// Holdfast's own files on a datastore, below `<mount>/.holdfast`: marker, heartbeat slots, owner files
// (formats: core/ha/slot.hpp, core/ha/datastore_files.hpp). Free functions, thread-safe, no state. Every call
// can hang for as long as the storage does: call them through a CallWorker (call_worker.hpp) or on a thread
// that may.
#include <string>
#include <vector>

#include "base/ids.hpp"
#include "base/result.hpp"
#include "core/ha/datastore_files.hpp"

namespace hf::datastore {

// Makes `.holdfast` with its folders and the marker. Code::exists: there is one already (of whatever id).
Status make_marker(const std::string& mount, const ha::DatastoreMarker& marker);
// Code::not_found: no datastore is mounted there (the folder may well exist: an unmounted mount point);
// Code::corrupt; else why it cannot be read.
Result<ha::DatastoreMarker> read_marker(const std::string& mount);
// Is this datastore mounted there? Code::conflict: another one is.
Status check_marker(const std::string& mount, const DatastoreId& id);

// The file of this host's slot, made if missing, only where the marker has this id.
Status make_slot(const std::string& mount, const DatastoreId& id, const HostId& host);
// safety (a renewal that others can see): writes in place and returns once the storage has it; makes no file,
// and fails where the marker is not this datastore's, so that a slot below an unmounted mount point is never
// taken for a renewal. REQUIRES: bytes.size() == ha::kSlotBytes
Status write_slot(const std::string& mount, const DatastoreId& id, const HostId& host,
                  const std::string& bytes);
// The present bytes of a host's slot, from the storage and not from a cache. Code::not_found: it has none
// here.
Result<std::string> read_slot(const std::string& mount, const HostId& host);

// safety (one owner): confirms on the datastore that the host of `owner` may run the VM, durably.
// Code::conflict: a larger epoch, or the same one of another host, stands there. Code::corrupt: what stands
// there cannot be read. In doubt: not.
Status confirm_owner(const std::string& mount, const ha::OwnerFile& owner);
// Code::not_found, Code::corrupt.
Result<ha::OwnerFile> read_owner(const std::string& mount, const VmId& vm);
// Erases it unless a larger epoch stands there (Code::conflict). Nothing there: done.
Status erase_owner(const std::string& mount, const VmId& vm, Epoch epoch);
// The VMs that have an owner file here, to rebuild a lost store from.
Result<std::vector<VmId>> list_owners(const std::string& mount);

}  // namespace hf::datastore
