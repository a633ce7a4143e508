#pragma once
// SqliteStore: the Store of a single host, in one file (WAL, every commit synced). Its process alone uses the
// file: a second open is refused with Code::conflict, so leases and watches need no other process's word.
//
// Owns the file and two threads: one ends leases, one calls watchers. Thread-safe. Leases are counted in
// memory: after a reopen each has its whole time to live again (later than due, never earlier).
// Code::corrupt: the file is damaged or not ours. Code::no_room: the disk is full; nothing was changed.
// Code::outcome_unknown: the disk failed while a commit was made durable.
#include <functional>
#include <memory>
#include <string>

#include "port/store.hpp"
#include "sys/process/clock.hpp"

namespace hf::sqlite {

struct SqliteOptions {
  std::string path;  // made if absent, readable by its owner only; the folder must exist
  std::function<Instant()> clock = sys::boot_now;
};

class SqliteStore final : public Store {
 public:
  static Result<std::unique_ptr<SqliteStore>> open(const SqliteOptions& options);
  ~SqliteStore() override;

  Result<Snapshot> list(const std::string& prefix) override;
  Result<Entry> get(const std::string& key) override;
  Result<Committed> commit(const Txn& txn) override;
  Result<LeaseId> grant(std::chrono::seconds ttl) override;
  Status keep_alive(LeaseId lease) override;
  Status revoke(LeaseId lease) override;
  Result<std::unique_ptr<Watch>> watch(const std::string& prefix, Watcher& watcher) override;

 private:
  class Impl;
  explicit SqliteStore(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace hf::sqlite
