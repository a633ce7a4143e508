#include "port/store_limits.hpp"

#include <fmt/format.h>

#include <set>
#include <string_view>

namespace hf {
namespace {

Error invalid(std::string what) { return Error{Code::invalid, std::move(what)}; }

}  // namespace

Status check(const Txn& txn) {
  if (txn.conditions.size() > kTxnKeysMax || txn.writes.size() > kTxnKeysMax)
    return invalid(fmt::format("A transaction takes at most {} keys. Split it.", kTxnKeysMax));
  std::size_t bytes = 0;
  for (const auto& condition : txn.conditions) {
    if (condition.key.empty()) return invalid("A condition has an empty key.");
    if (condition.version < 0) return invalid(fmt::format("The version of {} is negative.", condition.key));
    bytes += condition.key.size();
  }
  std::set<std::string_view> written;
  for (const auto& write : txn.writes) {
    if (write.key.empty()) return invalid("A write has an empty key.");
    if (!written.insert(write.key).second)
      return invalid(fmt::format("The key {} is written twice in one transaction.", write.key));
    if (write.erase && write.lease != LeaseId{})
      return invalid(fmt::format("The key {} is erased and bound to a lease.", write.key));
    bytes += write.key.size() + write.value.size();
  }
  if (bytes > kTxnBytesMax)
    return invalid(
        fmt::format("A transaction takes at most {} bytes; this one has {}.", kTxnBytesMax, bytes));
  return {};
}

Status check_ttl(std::chrono::seconds ttl) {
  if (ttl >= kTtlMin) return {};
  return invalid(fmt::format("A lease lasts at least {} seconds.", kTtlMin.count()));
}

Error no_such_key(const std::string& key) {
  return Error{Code::not_found, fmt::format("The store has no key {}.", key)};
}

Error lease_ended(LeaseId lease) {
  return Error{Code::not_found, fmt::format("The lease {:x} has ended.", lease.number)};
}

}  // namespace hf
