#include "port/copy_store.hpp"

#include "port/store_limits.hpp"

namespace hf {
namespace {

Error changed(std::string_view which) {
  return Error{Code::conflict, std::string(which) +
                                   " store changed while it was copied. Stop every other host, wipe the new"
                                   " store and copy again."};
}

Status flush(Store& to, Txn& txn) {
  if (txn.writes.empty()) return {};
  TRY_ASSIGN(const Committed committed, to.commit(txn));
  if (!committed.done) return changed("The new");
  txn = {};
  return {};
}

}  // namespace

Status copy_store(Store& from, Store& to) {
  TRY_ASSIGN(const Snapshot present, to.list(""));
  if (!present.entries.empty())
    return Error{Code::exists, "The new store already has keys, " + present.entries.front().key +
                                   " among them. Wipe it, or choose another one."};
  TRY_ASSIGN(const Snapshot source, from.list(""));
  Txn txn;
  std::size_t bytes = 0;
  for (const Entry& entry : source.entries) {
    if (entry.lease != LeaseId{}) continue;
    const std::size_t size = 2 * entry.key.size() + entry.value.size();
    if (txn.writes.size() == kTxnKeysMax || bytes + size > kTxnBytesMax) {
      TRY(flush(to, txn));
      bytes = 0;
    }
    txn.conditions.push_back({entry.key, 0});
    txn.writes.push_back({entry.key, entry.value, {}, false});
    bytes += size;
  }
  TRY(flush(to, txn));
  TRY_ASSIGN(const Snapshot after, from.list(""));
  if (after.entries != source.entries) return changed("The old");
  return {};
}

}  // namespace hf
