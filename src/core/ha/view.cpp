#include "core/ha/view.hpp"

namespace hf::ha {
namespace {

// Both return true if anything changed.
template <class Map, class Key>
bool put_in(Map& map, const Key& key, const KeyState& state) {
  using Record = decltype(map.begin()->second.record);
  auto found = map.find(key);
  if (found != map.end() && found->second.version >= state.version) return false;
  const auto* record = std::get_if<Record>(&state.value);
  if (record == nullptr) {
    if (found == map.end()) return false;
    map.erase(found);
  } else if (found != map.end()) {
    found->second = {*record, state.version};
  } else {
    map.emplace(key, Stored<Record>{*record, state.version});
  }
  return true;
}

template <class Record>
bool put_single(std::optional<Stored<Record>>& single, const KeyState& state) {
  if (single && single->version >= state.version) return false;
  const auto* record = std::get_if<Record>(&state.value);
  if (record == nullptr && !single) return false;
  if (record == nullptr) single.reset();
  else single = Stored<Record>{*record, state.version};
  return true;
}

// The part of `key` after `prefix`, if it begins so.
std::optional<std::string> after(const std::string& key, const std::string& prefix) {
  if (key.compare(0, prefix.size(), prefix) != 0) return std::nullopt;
  return key.substr(prefix.size());
}

template <class Map, class Key>
auto find_or_null(const Map& map, const Key& key) {
  auto found = map.find(key);
  return found == map.end() ? nullptr : &found->second;
}

}  // namespace

void View::put(const KeyState& state) {
  if (put_in_its_map(state)) ++revision;
}

bool View::put_owner(const VmId& vm, const KeyState& state) {
  const auto* before = owner(vm);
  const HostId holder = before == nullptr ? HostId() : before->record.host;
  if (!put_in(owners, vm, state)) return false;
  if (auto found = held.find(holder); found != held.end()) {
    found->second.erase(vm);
    if (found->second.empty()) held.erase(found);
  }
  using Phase = record::OwnerRecord::Phase;
  const auto* now = owner(vm);
  if (now != nullptr && now->record.phase != Phase::released) held[now->record.host].insert(vm);
  return true;
}

bool View::put_in_its_map(const KeyState& state) {
  namespace k = record::key;
  const std::string& key = state.key;
  if (auto gone = erased_.find(key); gone != erased_.end() && state.version <= gone->second) return false;
  if (auto owner = after(key, k::kOwners)) return put_owner(VmId(*owner), state);
  if (auto motion = after(key, k::kMotions)) return put_in(motions, VmId(*motion), state);
  if (auto vm = after(key, k::kRelocations)) return put_in(relocations, VmId(*vm), state);
  if (auto stat = after(key, k::kStatus)) return put_in(status, VmId(*stat), state);
  if (auto session = after(key, k::kSessions)) return put_in(sessions, HostId(*session), state);
  if (auto incarnation = after(key, k::kIncarnations)) return put_in(incarnations, HostId(*incarnation), state);
  if (auto host = after(key, k::kMaintenance)) return put_in(maintenance, HostId(*host), state);
  if (auto vm = after(key, k::kVms)) return put_in(vms, VmId(*vm), state);
  if (auto host = after(key, k::kHosts)) return put_in(hosts, HostId(*host), state);
  if (auto task = after(key, k::kTasks)) return put_in(tasks, TaskId(*task), state);
  if (auto datastore = after(key, k::kDatastores)) return put_in(datastores, *datastore, state);
  if (auto network = after(key, k::kNetworks)) return put_in(networks, *network, state);
  if (key == k::kLeader) return put_single(leader, state);
  if (key == k::kCluster) return put_single(cluster, state);
  return false;
}

void View::reset(const std::vector<KeyState>& all, Version as_of) {
  if (synced && as_of < version) return;
  View fresh;
  fresh.version = as_of;
  fresh.erased_ = erased_;
  fresh.forget_old_erasures();
  for (const auto& state : all) fresh.put(state);
  fresh.synced = true;
  // What this host wrote itself after the snapshot was taken is not in it.
  const auto keep_newer = [&](const auto& old, const std::string& prefix) {
    for (const auto& [id, stored] : old) {
      if (stored.version > as_of) fresh.put({prefix + id.text, stored.version, stored.record});
    }
  };
  keep_newer(owners, record::key::kOwners);
  keep_newer(motions, record::key::kMotions);
  keep_newer(relocations, record::key::kRelocations);
  keep_newer(status, record::key::kStatus);
  keep_newer(vms, record::key::kVms);
  keep_newer(tasks, record::key::kTasks);
  keep_newer(sessions, record::key::kSessions);
  keep_newer(incarnations, record::key::kIncarnations);
  keep_newer(maintenance, record::key::kMaintenance);
  fresh.revision = revision + 1;
  *this = std::move(fresh);
}

void View::apply(const std::vector<KeyState>& changes, Version as_of) {
  for (const auto& state : changes) put(state);
  version = std::max(version, as_of);
  forget_old_erasures();
}

void View::note_own_erasure(const KeyState& state) {
  if (std::holds_alternative<std::monostate>(state.value)) erased_[state.key] = state.version;
}

void View::forget_old_erasures() {
  for (auto gone = erased_.begin(); gone != erased_.end();) {
    gone = gone->second <= version ? erased_.erase(gone) : std::next(gone);
  }
}

void View::apply_read(const KeyState& state, Version as_of) {
  if (as_of <= version) return;
  if (std::holds_alternative<std::monostate>(state.value)) {
    const KeyState gone{state.key, as_of, {}};
    put(gone);
    note_own_erasure(gone);
  } else {
    put(state);
  }
}

void View::apply_own(const KeyState& state) {
  // The watch has told of it already, and perhaps that the key is gone since.
  if (state.version <= version) return;
  put(state);
  note_own_erasure(state);
}

const Stored<record::OwnerRecord>* View::owner(const VmId& vm) const { return find_or_null(owners, vm); }
const Stored<record::MotionRecord>* View::motion(const VmId& vm) const { return find_or_null(motions, vm); }
const Stored<record::RelocationRecord>* View::relocation(const VmId& vm) const {
  return find_or_null(relocations, vm);
}
const Stored<record::VmStatus>* View::status_of(const VmId& vm) const { return find_or_null(status, vm); }

}  // namespace hf::ha
