#include "sys/sqlite/sqlite_store.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>

#include "base/log.hpp"
#include "port/store_limits.hpp"
#include "port/watch_hub.hpp"
#include "sys/sqlite/database.hpp"

namespace hf::sqlite {
namespace {

constexpr int kFormat = 1;
constexpr int kMagic = 0x48464453;  // "HFDS"
constexpr Duration kLookMax = 1s;   // the thread's own clock may stand still while the machine sleeps

constexpr const char* kSchema = R"(
  CREATE TABLE version (number INTEGER NOT NULL);
  INSERT INTO version VALUES (1);
  CREATE TABLE leases (id INTEGER PRIMARY KEY AUTOINCREMENT, ttl_seconds INTEGER NOT NULL);
  CREATE TABLE entries (key BLOB NOT NULL UNIQUE, value BLOB NOT NULL, version INTEGER NOT NULL,
                        lease INTEGER NOT NULL);
  CREATE INDEX entries_by_lease ON entries (lease) WHERE lease <> 0;
)";

Entry entry_of(const Statement& row) {
  return Entry{row.bytes(0), row.bytes(1), row.integer(2), LeaseId{row.integer(3)}};
}

void sort_by_key(std::vector<Change>& changes) {
  std::sort(changes.begin(), changes.end(),
            [](const Change& a, const Change& b) { return a.entry.key < b.entry.key; });
}

}  // namespace

// Everything below `mutex_`; the *_locked functions expect it held.
class SqliteStore::Impl {
 public:
  Impl(Database database, std::function<Instant()> clock)
      : database_(std::move(database)), clock_(std::move(clock)) {}
  ~Impl() {
    {
      std::lock_guard lock(mutex_);
      ending_ = true;
    }
    changed_.notify_all();
    if (expirer_.joinable()) expirer_.join();
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  Status load();
  Result<Snapshot> list(const std::string& prefix);
  Result<Entry> get(const std::string& key);
  Result<Committed> commit(const Txn& txn);
  Result<LeaseId> grant(std::chrono::seconds ttl);
  Status keep_alive(LeaseId lease);
  Status revoke(LeaseId lease);
  Result<std::unique_ptr<Watch>> watch(const std::string& prefix, Watcher& watcher);

 private:
  struct Lease {
    std::chrono::seconds ttl{};
    Instant deadline;
  };

  Status prepare_schema();
  void expire_for_ever();
  Status expire_locked();
  Status end_lease_locked(LeaseId lease);
  Result<Snapshot> list_locked(const std::string& prefix);
  Result<Entry> get_locked(const std::string& key);
  Result<bool> holds_locked(const Txn& txn);
  Status write_locked(const Txn::Write& write, Version version, std::vector<Change>& changes);
  Status write_all_locked(const Txn& txn, Version version, std::vector<Change>& changes);
  Status transact_locked(const std::function<Status()>& act);
  Status set_version_locked(Version version);

  std::mutex mutex_;
  std::condition_variable changed_;
  Database database_;
  std::function<Instant()> clock_;
  Version version_ = 0;
  std::map<std::int64_t, Lease> leases_;
  bool ending_ = false;
  WatchHub hub_;
  std::thread expirer_;
};

Status SqliteStore::Impl::prepare_schema() {
  TRY_ASSIGN(Statement magic, database_.prepare("PRAGMA application_id"));
  TRY(magic.step());
  TRY_ASSIGN(Statement format, database_.prepare("PRAGMA user_version"));
  TRY(format.step());
  TRY_ASSIGN(Statement tables, database_.prepare("SELECT count(*) FROM sqlite_schema"));
  TRY(tables.step());
  if (tables.integer(0) == 0 && magic.integer(0) == 0) {
    const std::string sql =
        fmt::format("{} PRAGMA application_id = {}; PRAGMA user_version = {};", kSchema, kMagic, kFormat);
    return transact_locked([&] { return database_.execute(sql.c_str()); });
  }
  if (magic.integer(0) != kMagic)
    return Error{Code::corrupt, "The file is a database, but not a Holdfast store. Name another file."};
  if (format.integer(0) != kFormat)
    return Error{Code::unsupported,
                 fmt::format("The store has format {}, this release reads {}. Install the release"
                             " that wrote it.",
                             format.integer(0), kFormat)};
  return {};
}

Status SqliteStore::Impl::load() {
  std::lock_guard lock(mutex_);
  TRY(prepare_schema());
  TRY_ASSIGN(Statement version, database_.prepare("SELECT number FROM version"));
  TRY_ASSIGN(const bool found, version.step());
  if (!found) return Error{Code::corrupt, "The store has lost its version. Restore it from a backup."};
  version_ = version.integer(0);
  TRY_ASSIGN(Statement rows, database_.prepare("SELECT id, ttl_seconds FROM leases"));
  const Instant now = clock_();
  while (true) {
    TRY_ASSIGN(const bool row, rows.step());
    if (!row) break;
    const std::chrono::seconds ttl(rows.integer(1));
    leases_.emplace(rows.integer(0), Lease{ttl, now + ttl});
  }
  expirer_ = std::thread([this] { expire_for_ever(); });
  return {};
}

void SqliteStore::Impl::expire_for_ever() {
  std::unique_lock lock(mutex_);
  while (!ending_) {
    Duration wait = kLookMax;
    const Instant now = clock_();
    for (const auto& [id, lease] : leases_)
      wait = std::min(wait, std::max(lease.deadline - now, Duration(1ms)));
    changed_.wait_for(lock, wait);
    if (ending_) return;
    const Status expired = expire_locked();
    if (expired.ok()) continue;
    log(Level::error, "Cannot end a lease", {{"why", expired.error().what}});
    changed_.wait_for(lock, kLookMax);
  }
}

Status SqliteStore::Impl::expire_locked() {
  const Instant now = clock_();
  std::vector<LeaseId> due;
  for (const auto& [id, lease] : leases_)
    if (lease.deadline <= now) due.push_back(LeaseId{id});
  for (const LeaseId lease : due) TRY(end_lease_locked(lease));
  return {};
}

Status SqliteStore::Impl::end_lease_locked(LeaseId lease) {
  std::vector<Change> changes;
  const Version version = version_ + 1;
  const auto act = [&]() -> Status {
    TRY_ASSIGN(Statement rows,
               database_.prepare("SELECT key FROM entries WHERE lease = ?1 AND lease <> 0 ORDER BY key"));
    rows.bind(1, lease.number);
    while (true) {
      TRY_ASSIGN(const bool row, rows.step());
      if (!row) break;
      changes.push_back({Entry{rows.bytes(0), "", version, {}}, true});
    }
    TRY_ASSIGN(Statement keys, database_.prepare("DELETE FROM entries WHERE lease = ?1 AND lease <> 0"));
    TRY(keys.bind(1, lease.number).run());
    TRY_ASSIGN(Statement row, database_.prepare("DELETE FROM leases WHERE id = ?1"));
    TRY(row.bind(1, lease.number).run());
    if (changes.empty()) return {};
    return set_version_locked(version);
  };
  TRY(transact_locked(act));
  leases_.erase(lease.number);
  if (changes.empty()) return {};
  version_ = version;
  hub_.publish(changes, version);
  return {};
}

Result<Snapshot> SqliteStore::Impl::list_locked(const std::string& prefix) {
  TRY_ASSIGN(
      Statement rows,
      database_.prepare("SELECT key, value, version, lease FROM entries WHERE key >= ?1 ORDER BY key"));
  rows.bind(1, prefix);
  Snapshot out;
  out.version = version_;
  while (true) {
    TRY_ASSIGN(const bool row, rows.step());
    if (!row) return out;
    Entry entry = entry_of(rows);
    if (!entry.key.starts_with(prefix)) return out;
    out.entries.push_back(std::move(entry));
  }
}

Result<Entry> SqliteStore::Impl::get_locked(const std::string& key) {
  TRY_ASSIGN(Statement row,
             database_.prepare("SELECT key, value, version, lease FROM entries WHERE key = ?1"));
  row.bind(1, key);
  TRY_ASSIGN(const bool found, row.step());
  if (!found) return no_such_key(key);
  return entry_of(row);
}

Result<bool> SqliteStore::Impl::holds_locked(const Txn& txn) {
  for (const auto& condition : txn.conditions) {
    const auto found = get_locked(condition.key);
    if (!found.ok() && found.code() != Code::not_found) return found.error();
    if ((found.ok() ? found->version : 0) != condition.version) return false;
  }
  return true;
}

Status SqliteStore::Impl::write_locked(const Txn::Write& write, Version version,
                                       std::vector<Change>& changes) {
  if (write.erase) {
    TRY_ASSIGN(Statement row, database_.prepare("DELETE FROM entries WHERE key = ?1 RETURNING version"));
    row.bind(1, write.key);
    TRY_ASSIGN(const bool erased, row.step());
    if (!erased) return {};
    TRY(row.step());
    changes.push_back({Entry{write.key, "", version, {}}, true});
    return {};
  }
  TRY_ASSIGN(Statement row,
             database_.prepare("INSERT INTO entries (key, value, version, lease) VALUES (?1, ?2, ?3, ?4)"
                               " ON CONFLICT (key) DO UPDATE SET value = ?2, version = ?3, lease = ?4"));
  TRY(row.bind(1, write.key).bind(2, write.value).bind(3, version).bind(4, write.lease.number).run());
  changes.push_back({Entry{write.key, write.value, version, write.lease}, false});
  return {};
}

Status SqliteStore::Impl::write_all_locked(const Txn& txn, Version version, std::vector<Change>& changes) {
  for (const auto& write : txn.writes) TRY(write_locked(write, version, changes));
  return changes.empty() ? Status() : set_version_locked(version);
}

Status SqliteStore::Impl::set_version_locked(Version version) {
  TRY_ASSIGN(Statement row, database_.prepare("UPDATE version SET number = ?1"));
  return row.bind(1, version).run();
}

// All that `act` does to the file, or nothing of it.
Status SqliteStore::Impl::transact_locked(const std::function<Status()>& act) {
  TRY(database_.execute("BEGIN IMMEDIATE"));
  Status acted = act();
  bool committing = false;
  if (acted.ok()) {
    committing = true;
    acted = database_.execute("COMMIT");
  }
  if (acted.ok()) return acted;
  (void)database_.execute("ROLLBACK");  // SQLite has often done it itself; the first error is the one to tell
  // The log may hold the whole transaction although the sync failed: a later open would find it done.
  if (committing && acted.code() == Code::failed)
    return Error{Code::outcome_unknown, acted.error().what + " The change may or may not be on the disk."};
  return acted;
}

Result<Snapshot> SqliteStore::Impl::list(const std::string& prefix) {
  std::lock_guard lock(mutex_);
  TRY(expire_locked());
  return list_locked(prefix);
}

Result<Entry> SqliteStore::Impl::get(const std::string& key) {
  std::lock_guard lock(mutex_);
  TRY(expire_locked());
  return get_locked(key);
}

Result<Committed> SqliteStore::Impl::commit(const Txn& txn) {
  TRY(check(txn));
  std::lock_guard lock(mutex_);
  TRY(expire_locked());
  TRY_ASSIGN(const bool holds, holds_locked(txn));
  if (!holds) return Committed{};
  for (const auto& write : txn.writes)
    if (write.lease != LeaseId{} && !leases_.contains(write.lease.number)) return lease_ended(write.lease);
  if (txn.writes.empty()) return Committed{true, version_};
  std::vector<Change> changes;
  const Version version = version_ + 1;
  const auto act = [&] { return write_all_locked(txn, version, changes); };
  TRY(transact_locked(act));
  if (changes.empty()) return Committed{true, version_};
  version_ = version;
  sort_by_key(changes);
  hub_.publish(changes, version);
  return Committed{true, version};
}

Result<LeaseId> SqliteStore::Impl::grant(std::chrono::seconds ttl) {
  TRY(check_ttl(ttl));
  std::lock_guard lock(mutex_);
  const Instant now = clock_();
  std::int64_t id = 0;
  const auto act = [&]() -> Status {
    TRY_ASSIGN(Statement row, database_.prepare("INSERT INTO leases (ttl_seconds) VALUES (?1) RETURNING id"));
    row.bind(1, ttl.count());
    TRY(row.step());
    id = row.integer(0);
    TRY(row.step());
    return {};
  };
  TRY(transact_locked(act));
  leases_.emplace(id, Lease{ttl, now + ttl});
  changed_.notify_all();
  return LeaseId{id};
}

Status SqliteStore::Impl::keep_alive(LeaseId lease) {
  std::lock_guard lock(mutex_);
  TRY(expire_locked());
  const auto found = leases_.find(lease.number);
  if (found == leases_.end()) return lease_ended(lease);
  found->second.deadline = clock_() + found->second.ttl;
  return {};
}

Status SqliteStore::Impl::revoke(LeaseId lease) {
  std::lock_guard lock(mutex_);
  TRY(expire_locked());
  if (!leases_.contains(lease.number)) return lease_ended(lease);
  return end_lease_locked(lease);
}

Result<std::unique_ptr<Watch>> SqliteStore::Impl::watch(const std::string& prefix, Watcher& watcher) {
  std::lock_guard lock(mutex_);
  TRY(expire_locked());
  TRY_ASSIGN(Snapshot present, list_locked(prefix));
  return hub_.add(prefix, watcher, std::move(present));
}

Result<std::unique_ptr<SqliteStore>> SqliteStore::open(const SqliteOptions& options) {
  TRY_ASSIGN(Database database, Database::open(options.path));
  auto impl = std::make_unique<Impl>(std::move(database), options.clock);
  const Status loaded = impl->load();
  if (!loaded.ok()) return because(fmt::format("Cannot use {}", options.path), loaded.error());
  return std::unique_ptr<SqliteStore>(new SqliteStore(std::move(impl)));
}

SqliteStore::SqliteStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
SqliteStore::~SqliteStore() = default;

Result<Snapshot> SqliteStore::list(const std::string& prefix) { return impl_->list(prefix); }
Result<Entry> SqliteStore::get(const std::string& key) { return impl_->get(key); }
Result<Committed> SqliteStore::commit(const Txn& txn) { return impl_->commit(txn); }
Result<LeaseId> SqliteStore::grant(std::chrono::seconds ttl) { return impl_->grant(ttl); }
Status SqliteStore::keep_alive(LeaseId lease) { return impl_->keep_alive(lease); }
Status SqliteStore::revoke(LeaseId lease) { return impl_->revoke(lease); }
Result<std::unique_ptr<Watch>> SqliteStore::watch(const std::string& prefix, Watcher& watcher) {
  return impl_->watch(prefix, watcher);
}

}  // namespace hf::sqlite
