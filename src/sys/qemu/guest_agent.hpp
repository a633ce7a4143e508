#pragma once
// The guest agent (qemu-ga) behind a VM's agent socket. Stateless: each call connects, synchronises and
// leaves. The guest is not trusted: whatever it answers, the call ends within its limit and reads at most 64
// KiB.
#include <string>

#include "base/result.hpp"
#include "base/time.hpp"

namespace hf::qemu {

// Asks the guest's system to power off. Code::unavailable or timed_out: no agent answers, nothing was asked.
Status ask_guest_to_shut_down(const std::string& agent_socket, Duration limit);

}  // namespace hf::qemu
