#pragma once
// What every Store refuses before it does anything, so that a program tested on one store does not fail on
// another. The figures are etcd's defaults (128 operations, 1.5 MiB of request), with room for the frame.
#include <cstddef>

#include "port/store.hpp"

namespace hf {

inline constexpr std::size_t kTxnKeysMax = 128;           // conditions, and writes
inline constexpr std::size_t kTxnBytesMax = 1024 * 1024;  // keys and values together
inline constexpr std::chrono::seconds kTtlMin{2};

// Code::invalid: an empty key, a key written twice, a negative version, a lease on an erased key, too many or
// too large.
Status check(const Txn& txn);
// Code::invalid: shorter than kTtlMin.
Status check_ttl(std::chrono::seconds ttl);

// The errors that all stores word alike.
Error no_such_key(const std::string& key);
Error lease_ended(LeaseId lease);

}  // namespace hf
