#pragma once
// Which commands are legal in which state of a VM: one table, asked before a command becomes a task. Pure.
// It looks at what was last observed (VmStatus), at who may run the VM (OwnerRecord), at what is wanted
// (VmRecord::desired) and at the command under way (VmRecord::active_task). The records may be a moment old:
// whoever carries a command out checks again by compare-and-swap.
#include <cstddef>
#include <string>

#include "base/result.hpp"
#include "core/record/records.hpp"

namespace hf::vm {

enum class Command { start, stop, kill, reset, remove, edit, migrate, relocate };
inline constexpr std::size_t kCommands = 8;
inline constexpr std::size_t kVmStates = 8;

// status, owner: null where the store has none (the VM never ran).
// Code::conflict: another command is under way, or the state passes by itself; Code::invalid: illegal as
// things are. The text says what to do instead.
//   relocate: its disks go elsewhere, its guest stays: of a VM that runs or is
//   paused by a disk error, or of one that is off.
//   kill is legal while a vm.start, stop, reset or migrate is under way; `active` is the task that
//   VmRecord::active_task names, null if unknown. edit is legal while the VM runs; what it changes takes effect
//   at the next start (`edit_waits_for_start`).
Status check(Command command, const record::VmRecord& vm, const record::VmStatus* status,
             const record::OwnerRecord* owner, const record::TaskRecord* active = nullptr);

// The sentence for the user whose edit takes effect only at the next start; empty where it takes effect at
// once.
std::string edit_waits_for_start(const record::VmRecord& vm, const record::VmStatus* status,
                                 const record::OwnerRecord* owner);

// What a guest would see of the one it would see of the other.
bool has_same_hardware(const VmSpec& before, const VmSpec& after);

// What an edit may not change, because it stands on the datastore or was used up when the VM was created:
// Code::invalid with every reason. Both specs are valid.
Status check_edit(const VmSpec& before, const VmSpec& after);

}  // namespace hf::vm
