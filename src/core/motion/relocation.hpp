#pragma once
// What is true of one relocation (disks that go to another datastore, or into another format), as a view shows it, and
// the swaps that change it. Pure functions.
// ARCHITECTURE.md "How disks move" is the protocol; the part of the host that copies is in relocator.hpp, the leader's
// in relocation_planner.hpp.
//
// safety: what keeps the disks right, whatever is lost or late:
//   1. The commit is one swap of vms/<vm> (the spec that names the images) and relocations/<vm>. It insists on the
//      version of both, of owners/<vm>, and on the session of the host that copies. So it is not done after the
//      relocation was abandoned, the VM taken over or restarted, or that host's daemon replaced.
//   2. It is sent only while old and new images are equal and no request of the guest's reaches a disk, and that stays
//      so until the record is seen to be committed or abandoned, or the swap certainly was not done. Of a swap whose
//      answer was lost the record alone tells: abandoning it takes the version away that the commit insists on.
//   3. Whoever starts the VM insists on the spec that it starts it from (ha::Agent), and by that same swap takes away
//      the owner's version that a commit would insist on.
//   4. Files are deleted only after that, by the names in the record, and none of these is ever used again.
#include <map>
#include <optional>

#include "core/ha/events.hpp"
#include "core/motion/checks.hpp"
#include "core/motion/motion.hpp"

namespace hf::motion {

// A task that moves disks only.
bool is_relocation(const record::TaskRecord& task);
// What is asked of the disks by a vm.migrate task; no datastore: nothing.
vm::Relocation disks_of(const record::TaskRecord& task);

// It copies, and its commit may still come.
bool can_commit(const record::RelocationRecord& relocation, const View& view);

// Who deletes what is not needed any more: the one that a motion has named; else the VM's host, else the one that
// copied, else the leader.
HostId cleaner(const record::RelocationRecord& relocation, const View& view);

// The record as a task asks for it. REQUIRES: check_relocation() has no reason against it.
record::RelocationRecord planned(const record::TaskRecord& task, const HostId& host, const View& view);

// Ends a relocation that copies, and its task with `why`. nullopt: there is none with that id that copies. The user's
// cancel is this swap as well.
std::optional<TypedTxn> abandoning(const VmId& vm, const TaskId& id, const Error& why, const View& view);

struct RelocationQuestion {
  const View& view;
  const std::map<HostId, ha::Assessment>& health;
  VmId vm;
  vm::Relocation what;
};
// Why it cannot be done, all reasons at once, each a sentence; else the host that would copy. What the datastore has
// room for, that host sees.
Answer check_relocation(const RelocationQuestion& question);

}  // namespace hf::motion
