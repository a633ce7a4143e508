#pragma once
// The heartbeat slot: one block of 4 KiB on a slot datastore, `<mount>/.holdfast/slots/<host>`, renewed by
// the host's guard once a heartbeat and read by every other host. Pure; the files are sys/datastore's. Byte
// layout: doc/formats.md "Slot".
//
// An observer asks only one thing of it: has it changed? So it compares fingerprints of the raw bytes, torn
// or not; what decode_slot reads is for people and for hints, never for a proof.
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.hpp"
#include "base/result.hpp"
#include "base/time.hpp"

namespace hf::ha {

inline constexpr std::size_t kSlotBytes = 4096;
inline constexpr std::uint32_t kSlotVersion = 1;
inline constexpr std::size_t kSlotTextMax = 255;  // of each name and id

struct Slot {
  struct RunningVm {
    VmId vm;
    Epoch epoch;
    bool operator==(const RunningVm&) const = default;
  };
  HostId host;
  SessionId session;           // the host's store session; empty: none
  std::string incarnation;     // of the guard process
  std::uint64_t sequence = 0;  // grows with each renewal of one incarnation
  WallMs wall = 0;             // for people
  bool stopped_all = false;    // no protected VM was running when this was written; a hint, it does not last
  std::vector<RunningVm> running;   // as many as fit
  std::uint32_t running_total = 0;  // how many there are; encode_slot raises it to running.size()
  bool operator==(const Slot&) const = default;
};

// Always kSlotBytes long, zero-padded. Text longer than kSlotTextMax is cut; VMs that do not fit are only
// counted.
std::string encode_slot(const Slot& slot);
// Accepts any bytes. Code::corrupt: torn, damaged or no slot; Code::unsupported: written by a later version.
Result<Slot> decode_slot(std::string_view bytes);
// Changes with the bytes (64-bit FNV-1a: a change of a single byte always shows).
std::uint64_t slot_fingerprint(std::string_view bytes);

}  // namespace hf::ha
