#pragma once
// How a command ends, as parts of a swap: the one place for the leader, the agent and the roles of a motion. Pure.
// When it ended the shell writes: the deciding code knows no wall clock.
#include "core/ha/events.hpp"

namespace hf::ha {

// The VM has no command under way any more; `vm` was read at `version`, and may have been changed besides.
void free_of_task(record::VmRecord vm, Version version, TypedTxn& txn);
// `why` null: it has succeeded.
void end_task(record::TaskRecord task, const Error* why, TypedTxn& txn);
// Both, with `why` it failed, where command `id` is still the VM's.
void end_command(const VmId& vm, const TaskId& id, const Error& why, const View& view, TypedTxn& txn);

}  // namespace hf::ha
