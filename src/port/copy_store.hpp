#pragma once
// Moves a cluster's memory to another store: how a single host on SQLite grows into a cluster on etcd.
#include "port/store.hpp"

namespace hf {

// Copies every key that no lease binds; versions are new. The caller keeps everybody else off both stores
// meanwhile. Code::exists: `to` is not empty, nothing was written (the remains of a copy that broke off must
// be wiped first). Code::conflict: `from` or `to` changed meanwhile; the copy is worthless.
Status copy_store(Store& from, Store& to);

}  // namespace hf
