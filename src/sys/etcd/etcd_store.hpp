#pragma once
// EtcdStore: the Store of a cluster, on etcd 3.4 or later over its gRPC API.
//
// Owns its connections, and one thread per watch. Thread-safe. Needs no particular member: a call moves to
// the next endpoint when one does not answer, and stays there while it does.
//   - Reads are asked again elsewhere until the timeout.
//   - A commit goes only to a member that has just answered a linearizable read, and is never sent twice:
//   what breaks
//     after it was sent is Code::outcome_unknown, what breaks before is Code::unavailable.
//   - grant, keep_alive and revoke may be repeated without harm, and are.
// It never answers a read from one member's memory alone, and never takes a member's word for a lease that
// the member may have lost the right to prolong (see keep_alive in etcd_store.cpp). A Watch must not be ended
// from within its own watcher.
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "port/store.hpp"
#include "sys/etcd/options.hpp"

namespace hf::etcd {

class Endpoints;

class EtcdStore final : public Store {
 public:
  // Does not connect yet. Code::invalid: no endpoints; not_found or denied: a PEM file cannot be read.
  static Result<std::unique_ptr<EtcdStore>> open(const EtcdOptions& options);
  ~EtcdStore() override;

  Result<Snapshot> list(const std::string& prefix) override;
  Result<Entry> get(const std::string& key) override;
  Result<Committed> commit(const Txn& txn) override;
  Result<LeaseId> grant(std::chrono::seconds ttl) override;
  Status keep_alive(LeaseId lease) override;
  Status revoke(LeaseId lease) override;
  Result<std::unique_ptr<Watch>> watch(const std::string& prefix, Watcher& watcher) override;

 private:
  explicit EtcdStore(std::shared_ptr<Endpoints> endpoints);
  std::shared_ptr<Endpoints> endpoints_;  // shared with the watches
};

}  // namespace hf::etcd
