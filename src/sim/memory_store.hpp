#pragma once
// The store in memory.
//   StoreModel: the pure state machine, for the deterministic simulator. No clock, no threads, no I/O; the
//   same calls
//               give the same answers. A lease ends only in expire(): a driver may be late, as etcd may, but
//               not early.
//   MemoryStore: a blocking Store on one StoreModel, for tests. Several may share one Backend; its clock is
//   set by hand.
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "port/store.hpp"

namespace hf::sim {

class StoreModel {
 public:
  // What one commit, revocation or expiry changed.
  struct Batch {
    Version version = 0;
    std::vector<Change> changes;  // in the order of keys
  };

  // `history_max`: how many batches are remembered for changes_since; the oldest are forgotten first.
  explicit StoreModel(std::size_t history_max = 4096) : history_max_(history_max) {}

  Snapshot list(const std::string& prefix) const;
  Result<Entry> get(const std::string& key) const;
  // Code::not_found: a write names a lease that has ended. Code::invalid: see check() in
  // port/store_limits.hpp.
  Result<Committed> commit(const Txn& txn);

  Result<LeaseId> grant(std::chrono::seconds ttl, Instant now);
  // Code::not_found also when the time is over and expire() has not come by yet.
  Status keep_alive(LeaseId lease, Instant now);
  Status revoke(LeaseId lease);
  // Ends every lease whose time is over, in the order of their ids.
  void expire(Instant now);
  // When the next lease ends, if nobody keeps it alive.
  std::optional<Instant> next_expiry() const;

  Version version() const { return version_; }
  // The batches with a version larger than `since`, reduced to the prefix; empty ones are left out.
  // nullopt: some of them are forgotten, the reader must list() anew.
  std::optional<std::vector<Batch>> changes_since(Version since, const std::string& prefix) const;
  // Forgets the batches up to and including `upto`.
  void compact(Version upto);

 private:
  struct Lease {
    std::chrono::seconds ttl{};
    Instant deadline;
    std::set<std::string> keys;
  };
  using Leases = std::map<std::int64_t, Lease>;

  void unbind(const Entry& entry);
  void end(Leases::iterator lease);
  void remember(std::vector<Change> changes);

  std::size_t history_max_;
  std::map<std::string, Entry> entries_;
  Leases leases_;
  std::int64_t last_lease_ = 0;
  Version version_ = 1;    // as a fresh etcd: 0 stays "does not exist"
  Version compacted_ = 1;  // batches up to this one are forgotten
  std::deque<Batch> history_;
};

class MemoryStore final : public Store {
 public:
  // What several MemoryStores see in common. Thread-safe.
  class Backend;
  static std::shared_ptr<Backend> make_backend();
  // Moves the backend's clock and ends the leases whose time is over.
  static void advance(Backend& backend, Duration by);
  static Instant now(Backend& backend);

  explicit MemoryStore(std::shared_ptr<Backend> backend = make_backend());
  ~MemoryStore() override;

  Result<Snapshot> list(const std::string& prefix) override;
  Result<Entry> get(const std::string& key) override;
  Result<Committed> commit(const Txn& txn) override;
  Result<LeaseId> grant(std::chrono::seconds ttl) override;
  Status keep_alive(LeaseId lease) override;
  Status revoke(LeaseId lease) override;
  Result<std::unique_ptr<Watch>> watch(const std::string& prefix, Watcher& watcher) override;

 private:
  std::shared_ptr<Backend> backend_;  // shared by the stores that tests open on it
};

}  // namespace hf::sim
