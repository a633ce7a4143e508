#pragma once
// What both sides of a motion need first. Stateless.
#include "engine/connection.hpp"
#include "engine/guest_memory.hpp"
#include "motion/messages.hpp"
#include "sys/qemu/engine_monitor.hpp"
#include "sys/qemu/run_dir.hpp"

namespace hf::motion {

inline constexpr Duration kQemuLimit = 10s;  // for what QEMU answers at once unless it is frozen

// Why a motion has failed, of what came first and what was noticed. What was heard first says more than what it caused;
// but that connections broke says less than the other side's own words.
Error reason_of(const engine::Failure& first, const Error& noticed);

// Of the tunnel, for QEMU's own migration.
inline const std::string kMigrationChannel = "migration";
// Of the tunnel, for a disk that goes along.
inline std::string disk_channel(const std::string& disk) { return "disk:" + disk; }

Result<engine::ConnectionOptions> connection_options(const Leg& leg);
Result<qemu::LaunchRecord> launch_record(const qemu::RunDir& dir);
// By TCG, without KVM.
bool is_emulated(const qemu::LaunchRecord& record);

}  // namespace hf::motion
