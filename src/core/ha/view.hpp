#pragma once
// View: a host's typed mirror of the store, fed by the watch, by single reads and by the host's own commits.
// A key never goes back: a change older than what is known is ignored. Owned by the control thread.
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/ids.hpp"
#include "core/record/records.hpp"

namespace hf::ha {

using Version = std::int64_t;

template <class Record>
struct Stored {
  Record record;
  Version version = 0;
};

// One key's new state. value monostate: erased.
struct KeyState {
  std::string key;
  Version version = 0;
  record::Any value;
};

struct View {
  bool synced = false;   // false until the first whole snapshot
  Version version = 0;   // everything up to here is in
  std::uint64_t revision = 0;  // grows whenever anything in it changes, whoever told of it
  std::optional<Stored<record::ClusterRecord>> cluster;
  std::optional<Stored<record::LeaderRecord>> leader;
  std::map<HostId, Stored<record::HostRecord>> hosts;
  std::map<HostId, Stored<record::SessionRecord>> sessions;
  std::map<HostId, Stored<record::SessionRecord>> incarnations;
  std::map<HostId, Stored<record::MaintenanceRecord>> maintenance;
  std::map<VmId, Stored<record::VmRecord>> vms;
  std::map<VmId, Stored<record::OwnerRecord>> owners;
  std::map<HostId, std::set<VmId>> held;  // the owners that are not released, by their host
  std::map<VmId, Stored<record::MotionRecord>> motions;
  std::map<VmId, Stored<record::RelocationRecord>> relocations;
  std::map<VmId, Stored<record::VmStatus>> status;
  std::map<std::string, Stored<record::DatastoreRecord>> datastores;
  std::map<std::string, Stored<record::NetworkRecord>> networks;
  std::map<TaskId, Stored<record::TaskRecord>> tasks;

  // The whole state as of `version`: what is not in it is gone.
  void reset(const std::vector<KeyState>& all, Version as_of);
  // Changes up to `as_of`, in order.
  void apply(const std::vector<KeyState>& changes, Version as_of);
  // One key as a read saw it, the store being at `as_of`; ignored if the view is newer.
  void apply_read(const KeyState& state, Version as_of);
  // A key this host itself wrote with `state.version`.
  void apply_own(const KeyState& state);

  // nullptr if there is none.
  const Stored<record::OwnerRecord>* owner(const VmId& vm) const;
  const Stored<record::MotionRecord>* motion(const VmId& vm) const;
  const Stored<record::RelocationRecord>* relocation(const VmId& vm) const;
  const Stored<record::VmStatus>* status_of(const VmId& vm) const;

 private:
  void put(const KeyState& state);
  bool put_in_its_map(const KeyState& state);
  bool put_owner(const VmId& vm, const KeyState& state);
  void note_own_erasure(const KeyState& state);
  void forget_old_erasures();

  // Keys this host erased itself, or read as erased, at a version that the watch has not reached yet: what the watch
  // tells of them from before does not bring them back.
  std::map<std::string, Version> erased_;
};

}  // namespace hf::ha
