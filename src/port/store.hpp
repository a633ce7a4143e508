#pragma once
// Store: the cluster's small, consistent memory (inventory, ownership, election, tasks). etcd in a cluster,
// SQLite on a single host, a simulated one in tests; all three pass the contract suite in
// port/store_contract.hpp.
//
// Semantics every implementation gives:
//   - linearizable: a read sees every write that was acknowledged before it began;
//   - versions: each committed write gets a larger `version`, unique in the store; a key's version changes
//   with each
//     write to it, also when it is deleted and made again;
//   - a lease deletes the keys bound to it once it was not kept alive for its time to live, never earlier
//   than
//     ttl after the *sending* of the last keep_alive (or grant) that succeeded;
//   - errors: Code::unavailable = certainly not done; Code::outcome_unknown = perhaps done (reply lost): the
//   caller
//     reads before it decides anything; Code::conflict never comes as an error: Committed says so.
// Thread-safe; every call blocks until done or its deadline (Options::timeout) has passed.
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "base/time.hpp"

namespace hf {

// 0 as a condition means "the key does not exist".
using Version = std::int64_t;

// A time-bound right, granted by the store. 0: no lease.
struct LeaseId {
  std::int64_t number = 0;
  auto operator<=>(const LeaseId&) const = default;
};

struct Entry {
  std::string key;
  std::string value;
  Version version = 0;
  LeaseId lease;
  bool operator==(const Entry&) const = default;
};

// What a read or a snapshot saw, and as of which version of the whole store.
struct Snapshot {
  std::vector<Entry> entries;  // ordered by key
  Version version = 0;
};

// A compare-and-swap over several keys: if every condition holds, every write is made, atomically; else none.
struct Txn {
  struct Condition {
    std::string key;
    Version version;  // 0: must not exist
  };
  struct Write {
    std::string key;
    std::string value;
    LeaseId lease{};
    bool erase = false;
  };
  std::vector<Condition> conditions;
  std::vector<Write> writes;
};

struct Committed {
  bool done = false;    // false: a condition did not hold, nothing was written
  Version version = 0;  // of the writes, if done
};

// One change of a watched key.
struct Change {
  Entry entry;  // the new state; value empty if erased
  bool erased = false;
};

// Receives the changes under a prefix. Called from one thread of the store, in order of version, each change
// at least once. `on_reset` comes first and again whenever changes may have been lost (reconnect after
// compaction): it carries the whole present state. `on_lost`: contact is gone, the view is stale from now on;
// a later on_reset or change ends it.
class Watcher {
 public:
  virtual ~Watcher() = default;
  virtual void on_reset(const Snapshot& snapshot) = 0;
  virtual void on_changes(const std::vector<Change>& changes, Version version) = 0;
  virtual void on_lost(const Error& why) = 0;
};

// Ends the watch when destroyed; after the destructor returns, the watcher is not called any more.
class Watch {
 public:
  virtual ~Watch() = default;
};

class Store {
 public:
  struct Options {
    Duration timeout = 2s;  // of one call, retries on other endpoints included
  };
  virtual ~Store() = default;

  // All entries whose key begins with `prefix`, ordered.
  virtual Result<Snapshot> list(const std::string& prefix) = 0;
  // Code::not_found if there is none.
  virtual Result<Entry> get(const std::string& key) = 0;
  virtual Result<Committed> commit(const Txn& txn) = 0;

  // A lease that ends unless it is kept alive. ttl: whole seconds, at least 2 (etcd's floor at its default
  // timing).
  virtual Result<LeaseId> grant(std::chrono::seconds ttl) = 0;
  // Code::not_found: it has ended; its keys are gone.
  virtual Status keep_alive(LeaseId lease) = 0;
  virtual Status revoke(LeaseId lease) = 0;

  virtual Result<std::unique_ptr<Watch>> watch(const std::string& prefix, Watcher& watcher) = 0;
};

}  // namespace hf
