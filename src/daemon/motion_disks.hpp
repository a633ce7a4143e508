#pragma once
// The disks of a motion that takes them along, on either host: which they are, and the new images. Stateless; any
// thread; calls block.
#include "core/ha/events.hpp"
#include "daemon/surroundings.hpp"
#include "motion/messages.hpp"

namespace hf::daemon {

// Source: as QEMU's nodes name them. None: none go along.
std::vector<std::string> outgoing_disks(const ha::action::Send& send);

// Destination: makes the images and what else the VM has in its folder. REQUIRES: disks go along.
Result<std::vector<motion::IncomingDisk>> make_incoming_disks(const ha::action::Prepare& prepare,
                                                              const Surroundings& surroundings);
// Destination: bytes that are free where they come to; 0: none come, or the datastore does not say.
std::uint64_t room_for_disks(const ha::action::Prepare& prepare, const Surroundings& surroundings);

}  // namespace hf::daemon
