#include "sim/world_store.hpp"

namespace hf::sim {

const WorldStore::Entry* WorldStore::get(const std::string& key) const {
  auto found = entries_.find(key);
  return found == entries_.end() ? nullptr : &found->second;
}

std::vector<ha::KeyState> WorldStore::all() const {
  std::vector<ha::KeyState> result;
  result.reserve(entries_.size());
  for (const auto& [key, entry] : entries_) result.push_back({key, entry.version, entry.value});
  return result;
}

bool WorldStore::accepts(const ha::TypedTxn& txn) const {
  for (const auto& condition : txn.conditions) {
    const Entry* entry = get(condition.key);
    if ((entry == nullptr ? 0 : entry->version) != condition.version) return false;
  }
  for (const auto& write : txn.writes) {
    if (write.lease != 0 && leases_.count(write.lease) == 0) return false;
  }
  return true;
}

ha::Version WorldStore::commit(const ha::TypedTxn& txn) {
  log_.push_back({version_ + 1, {}});
  for (const auto& write : txn.writes) put(write);
  // What changes nothing has no version of its own.
  if (log_.back().changes.empty())
    log_.pop_back();
  else
    ++version_;
  return version_;
}

void WorldStore::put(const ha::TypedTxn::Write& write) {
  auto found = entries_.find(write.key);
  if (found != entries_.end()) unbind(write.key, found->second.lease);
  if (std::holds_alternative<std::monostate>(write.value)) {
    if (found == entries_.end()) return;
    entries_.erase(found);
  } else {
    entries_.insert_or_assign(write.key, Entry{write.value, version_ + 1, write.lease});
    if (write.lease != 0) leases_.at(write.lease).keys.insert(write.key);
  }
  log_.back().changes.push_back({write.key, version_ + 1, write.value});
}

void WorldStore::unbind(const std::string& key, ha::LeaseNumber lease) {
  auto found = leases_.find(lease);
  if (found != leases_.end()) found->second.keys.erase(key);
}

ha::LeaseNumber WorldStore::grant(Duration ttl, Time now) {
  leases_[++last_lease_] = {ttl, now + ttl, {}};
  return last_lease_;
}

bool WorldStore::keep_alive(ha::LeaseNumber lease, Time now) {
  auto found = leases_.find(lease);
  if (found == leases_.end() || found->second.deadline <= now) return false;
  found->second.deadline = now + found->second.ttl;
  return true;
}

bool WorldStore::expire(Time now) {
  bool any = false;
  for (auto lease = leases_.begin(); lease != leases_.end();) {
    if (lease->second.deadline > now) {
      ++lease;
      continue;
    }
    ha::TypedTxn txn;
    for (const auto& key : lease->second.keys) txn.writes.push_back({key, {}, 0});
    lease = leases_.erase(lease);
    if (!txn.writes.empty()) commit(txn);
    any = true;
  }
  return any;
}

void WorldStore::renew_all(Time now) {
  for (auto& [number, lease] : leases_) lease.deadline = now + lease.ttl;
}

}  // namespace hf::sim
