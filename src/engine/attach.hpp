#pragma once
// From the answer of a QEMU's shim (sys/qemu/shim_client.hpp) to its guest's memory and a tracker for it. Stateless.
//   answer = qemu::ask_shim(run_dir.memory_socket(), 2s)
//   memory = map_guest_memory(answer)
//   tracker = make_tracker(memory, move(answer), is_kvm)      only where pages are sent from
#include <memory>

#include "base/result.hpp"
#include "engine/guest_memory.hpp"
#include "engine/tracker.hpp"
#include "sys/qemu/shim_client.hpp"

namespace hf::engine {

// Takes the files out of the answer.
Result<GuestMemory> map_guest_memory(qemu::ShimAnswer& answer);

// The best tracker that works for this guest; describe() says which and why. The guest may run. `memory`, mapped from
// the same answer, must outlive it. Code::conflict: another process tracks this guest already.
Result<std::unique_ptr<Tracker>> make_tracker(const GuestMemory& memory, qemu::ShimAnswer answer,
                                              bool is_kvm);

}  // namespace hf::engine
