#pragma once
// What one attempt of a command read of its VM. Shared by operations.cpp, create.cpp and migrate.cpp only.
#include "api/operations.hpp"

namespace hf::api {

// A VM as one attempt read it.
struct Operations::Target {
  Versioned<record::VmRecord> vm;
  Versioned<record::OwnerRecord> owner;
  Versioned<record::VmStatus> status;
  Versioned<record::TaskRecord> active;  // version 0: none
  bool relocating = false;               // its disks move, or what a move has left is being deleted

  const std::string& name() const { return vm.record.spec.name; }
  bool busy() const { return active.version != 0 && !is_final(active.record); }
};

// As the store takes it; the task that ends, first: whether the swap was done is told by it.
Txn in_store_form(const ha::TypedTxn& typed, WallMs now);

}  // namespace hf::api
