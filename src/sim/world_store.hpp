#pragma once
// WorldStore: the store of a simulated world, on typed records: the state machine only. Same contract as
// port/store.hpp (linearizable, versions, leases that never end early); no JSON, for speed. Owned by World;
// StoreService (store_service.hpp) decides who reaches it, when, and what is lost on the way.
#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/ha/events.hpp"
#include "sim/queue.hpp"

namespace hf::sim {

class WorldStore {
 public:
  struct Entry {
    record::Any value;
    ha::Version version = 0;
    ha::LeaseNumber lease = 0;
  };
  struct Batch {
    ha::Version version = 0;
    std::vector<ha::KeyState> changes;
  };

  // nullptr if there is none.
  const Entry* get(const std::string& key) const;
  std::vector<ha::KeyState> all() const;
  ha::Version version() const { return version_; }
  // Every change ever, in order.
  const std::vector<Batch>& log() const { return log_; }

  // Whether commit() would do it: every condition holds and every lease named lives.
  bool accepts(const ha::TypedTxn& txn) const;
  // REQUIRES: accepts(txn). Returns the version of the writes.
  ha::Version commit(const ha::TypedTxn& txn);

  ha::LeaseNumber grant(Duration ttl, Time now);
  // False: it has ended.
  bool keep_alive(ha::LeaseNumber lease, Time now);
  // Ends every lease whose time is over. True if any has.
  bool expire(Time now);
  // A new leader of the store gives every lease its full time again.
  void renew_all(Time now);

 private:
  struct Lease {
    Duration ttl{};
    Time deadline{};
    std::set<std::string> keys;
  };
  void put(const ha::TypedTxn::Write& write);
  void unbind(const std::string& key, ha::LeaseNumber lease);

  std::map<std::string, Entry> entries_;
  std::map<ha::LeaseNumber, Lease> leases_;
  ha::LeaseNumber last_lease_ = 0;
  ha::Version version_ = 1;
  std::vector<Batch> log_;
};

}  // namespace hf::sim
