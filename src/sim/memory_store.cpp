#include "sim/memory_store.hpp"

#include <algorithm>
#include <mutex>

#include "base/ensure.hpp"
#include "port/store_limits.hpp"
#include "port/watch_hub.hpp"

namespace hf::sim {

Snapshot StoreModel::list(const std::string& prefix) const {
  Snapshot out;
  out.version = version_;
  for (auto at = entries_.lower_bound(prefix); at != entries_.end() && at->first.starts_with(prefix); ++at)
    out.entries.push_back(at->second);
  return out;
}

Result<Entry> StoreModel::get(const std::string& key) const {
  const auto found = entries_.find(key);
  if (found == entries_.end()) return no_such_key(key);
  return found->second;
}

Result<Committed> StoreModel::commit(const Txn& txn) {
  TRY(check(txn));
  for (const auto& condition : txn.conditions) {
    const auto found = entries_.find(condition.key);
    if ((found == entries_.end() ? 0 : found->second.version) != condition.version) return Committed{};
  }
  for (const auto& write : txn.writes)
    if (write.lease != LeaseId{} && !leases_.contains(write.lease.number)) return lease_ended(write.lease);

  std::vector<Change> changes;
  const Version version = version_ + 1;
  for (const auto& write : txn.writes) {
    const auto found = entries_.find(write.key);
    if (found != entries_.end()) unbind(found->second);
    if (write.erase) {
      if (found == entries_.end()) continue;
      entries_.erase(found);
      changes.push_back({Entry{write.key, "", version, {}}, true});
      continue;
    }
    const Entry entry{write.key, write.value, version, write.lease};
    entries_[write.key] = entry;
    if (write.lease != LeaseId{}) leases_[write.lease.number].keys.insert(write.key);
    changes.push_back({entry, false});
  }
  remember(std::move(changes));
  return Committed{true, version_};
}

Result<LeaseId> StoreModel::grant(std::chrono::seconds ttl, Instant now) {
  TRY(check_ttl(ttl));
  leases_.emplace(++last_lease_, Lease{ttl, now + ttl, {}});
  return LeaseId{last_lease_};
}

Status StoreModel::keep_alive(LeaseId lease, Instant now) {
  const auto found = leases_.find(lease.number);
  if (found == leases_.end() || found->second.deadline <= now) return lease_ended(lease);
  found->second.deadline = now + found->second.ttl;
  return {};
}

Status StoreModel::revoke(LeaseId lease) {
  const auto found = leases_.find(lease.number);
  if (found == leases_.end()) return lease_ended(lease);
  end(found);
  return {};
}

void StoreModel::expire(Instant now) {
  for (auto at = leases_.begin(); at != leases_.end();) {
    const auto lease = at++;
    if (lease->second.deadline <= now) end(lease);
  }
}

std::optional<Instant> StoreModel::next_expiry() const {
  std::optional<Instant> next;
  for (const auto& [id, lease] : leases_)
    if (!next || lease.deadline < *next) next = lease.deadline;
  return next;
}

std::optional<std::vector<StoreModel::Batch>> StoreModel::changes_since(Version since,
                                                                        const std::string& prefix) const {
  if (since < compacted_) return std::nullopt;
  std::vector<Batch> out;
  auto at = std::upper_bound(history_.begin(), history_.end(), since,
                             [](Version version, const Batch& batch) { return version < batch.version; });
  for (; at != history_.end(); ++at) {
    Batch seen{at->version, {}};
    for (const auto& change : at->changes)
      if (change.entry.key.starts_with(prefix)) seen.changes.push_back(change);
    if (!seen.changes.empty()) out.push_back(std::move(seen));
  }
  return out;
}

void StoreModel::compact(Version upto) {
  while (!history_.empty() && history_.front().version <= upto) {
    compacted_ = history_.front().version;
    history_.pop_front();
  }
}

void StoreModel::unbind(const Entry& entry) {
  const auto lease = leases_.find(entry.lease.number);
  if (lease != leases_.end()) lease->second.keys.erase(entry.key);
}

void StoreModel::end(Leases::iterator lease) {
  std::vector<Change> changes;
  for (const auto& key : lease->second.keys) {
    entries_.erase(key);
    changes.push_back({Entry{key, "", version_ + 1, {}}, true});
  }
  leases_.erase(lease);
  remember(std::move(changes));
}

void StoreModel::remember(std::vector<Change> changes) {
  if (changes.empty()) return;
  std::sort(changes.begin(), changes.end(),
            [](const Change& a, const Change& b) { return a.entry.key < b.entry.key; });
  history_.push_back({++version_, std::move(changes)});
  if (history_.size() > history_max_) compact(history_.front().version);
}

class MemoryStore::Backend {
 public:
  // Calls `act(model, now)` and hands on what it changed.
  template <class Act>
  auto with(Act act) {
    std::lock_guard lock(mutex_);
    const Version before = model_.version();
    model_.expire(now_);
    auto answer = act(model_, now_);
    hand_on(before);
    return answer;
  }

  std::unique_ptr<Watch> watch(const std::string& prefix, Watcher& watcher) {
    std::lock_guard lock(mutex_);
    return hub_.add(prefix, watcher, model_.list(prefix));
  }

  void advance(Duration by) {
    std::lock_guard lock(mutex_);
    now_ += by;
    const Version before = model_.version();
    model_.expire(now_);
    hand_on(before);
  }

 private:
  void hand_on(Version since) {
    if (model_.version() == since) return;
    const auto batches = model_.changes_since(since, "");
    ENSURE(batches.has_value(), "one call made more batches than the model remembers");
    for (const auto& batch : *batches) hub_.publish(batch.changes, batch.version);
  }

  std::mutex mutex_;
  StoreModel model_{1'000'000};
  Instant now_{std::chrono::hours(1)};
  WatchHub hub_;
};

std::shared_ptr<MemoryStore::Backend> MemoryStore::make_backend() { return std::make_shared<Backend>(); }
void MemoryStore::advance(Backend& backend, Duration by) { backend.advance(by); }
Instant MemoryStore::now(Backend& backend) {
  return backend.with([](StoreModel&, Instant now) { return now; });
}

MemoryStore::MemoryStore(std::shared_ptr<Backend> backend) : backend_(std::move(backend)) {}
MemoryStore::~MemoryStore() = default;

Result<Snapshot> MemoryStore::list(const std::string& prefix) {
  return backend_->with([&](StoreModel& model, Instant) { return Result<Snapshot>(model.list(prefix)); });
}
Result<Entry> MemoryStore::get(const std::string& key) {
  return backend_->with([&](StoreModel& model, Instant) { return model.get(key); });
}
Result<Committed> MemoryStore::commit(const Txn& txn) {
  return backend_->with([&](StoreModel& model, Instant) { return model.commit(txn); });
}
Result<LeaseId> MemoryStore::grant(std::chrono::seconds ttl) {
  return backend_->with([&](StoreModel& model, Instant now) { return model.grant(ttl, now); });
}
Status MemoryStore::keep_alive(LeaseId lease) {
  return backend_->with([&](StoreModel& model, Instant now) { return model.keep_alive(lease, now); });
}
Status MemoryStore::revoke(LeaseId lease) {
  return backend_->with([&](StoreModel& model, Instant) { return model.revoke(lease); });
}
Result<std::unique_ptr<Watch>> MemoryStore::watch(const std::string& prefix, Watcher& watcher) {
  return backend_->watch(prefix, watcher);
}

}  // namespace hf::sim
