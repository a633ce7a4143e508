#pragma once
// Why a QEMU ended: pure. Two witnesses: the monitor's SHUTDOWN event, if somebody listened, and QEMU's own
// log, which has a trace line for every shutdown request (kShutdownTrace) and so also tells what happened
// while no daemon ran.
#include <string>
#include <string_view>

#include "port/hypervisor.hpp"

namespace hf::qemu {

// QEMU's trace event, turned on on every command line.
inline constexpr std::string_view kShutdownTrace = "qemu_system_shutdown_request";

struct ExitFacts {
  bool killed_by_us = false;
  std::string shutdown_reason;  // of the SHUTDOWN event; empty: none was seen
  std::string qemu_log;         // the end of it
};
struct ExitReason {
  ExitKind kind = ExitKind::qemu_crash;
  std::string text;
};
ExitReason explain_exit(const ExitFacts& facts);

// The last lines of QEMU's log that are meant for people.
std::string last_words(std::string_view qemu_log);

}  // namespace hf::qemu
