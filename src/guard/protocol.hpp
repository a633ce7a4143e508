#pragma once
// What goes over the guard's socket, `<run>/guard.sock`: SOCK_SEQPACKET, one JSON object a packet
// (doc/formats.md "Guard socket"). Pure; used by the guard and by GuardClient.
#include <optional>
#include <string>
#include <vector>

#include "base/ids.hpp"
#include "base/result.hpp"
#include "base/time.hpp"
#include "core/ha/guard.hpp"

namespace hf::guard {

inline constexpr std::size_t kPacketMax = 128 * 1024;

struct SlotTarget {
  DatastoreId datastore;
  std::string mount;  // path on this host
  bool operator==(const SlotTarget&) const = default;
};

struct Request {
  enum class Op { renewed, slots, admit, thaw, drop, freeze_all, status, subscribe };
  Op op = Op::status;
  Instant started{};              // renewed: when the successful renewal of the store session began
  SessionId session;              // renewed
  std::vector<SlotTarget> slots;  // slots: all of them
  ha::Admission admission;        // admit
  VmId vm;                        // thaw, drop
  Epoch epoch;                    // thaw, drop
  std::uint64_t generation = 0;   // admit, thaw: of the host's contact when the claim was begun
  std::string reason;             // freeze_all
  bool operator==(const Request&) const = default;
};

struct VmReport {
  VmId vm;
  Epoch epoch;
  ha::Guard::State state = ha::Guard::State::running;
  std::uint64_t generation = 0;  // of its last freeze
  std::string reason;            // of its last freeze
  bool operator==(const VmReport&) const = default;
};

struct SlotReport {
  DatastoreId datastore;
  std::string mount;
  bool ok = false;             // renewed within the last three heartbeats
  Instant last_success{};      // its start; 0: never
  Duration latency = 0ns;      // of the last renewal that ended
  std::uint64_t failures = 0;  // since the last success
  std::string error;           // of the last failure
  bool operator==(const SlotReport&) const = default;
};

struct GuardStatus {
  Instant now{};
  Instant deadline{};  // Instant::max(): never
  bool contact_fresh = false;
  std::uint64_t generation = 0;  // of the host's contact
  std::vector<VmReport> vms;
  std::vector<SlotReport> slots;
  bool operator==(const GuardStatus&) const = default;
};

// Pushed to subscribers. contact: it was lost or came back; ask for the status.
struct GuardEvent {
  enum class Kind { frozen, thawed, slot_lost, slot_back, contact };
  Kind kind = Kind::frozen;
  VmReport vm;      // frozen, thawed
  SlotReport slot;  // slot_lost, slot_back
  bool operator==(const GuardEvent&) const = default;
};

std::string encode(const Request& request);
Result<Request> decode_request(const std::string& packet);  // Code::invalid

// The answer to each request; `status` goes along with Op::status and Op::subscribe.
std::string encode_reply(const Status& outcome, const std::optional<GuardStatus>& status);
// The error of a refused request; a GuardStatus that is empty where none came along.
Result<GuardStatus> decode_reply(const std::string& packet);

std::string encode(const GuardEvent& event);
Result<GuardEvent> decode_event(const std::string& packet);

// `<run>/guard.state`: so that a restarted guard finds its VMs and its slots again.
struct GuardState {
  std::vector<ha::Admission> admissions;
  std::vector<SlotTarget> slots;
  bool operator==(const GuardState&) const = default;
};
std::string encode_state(const GuardState& state);
Result<GuardState> decode_state(const std::string& text);  // Code::corrupt

}  // namespace hf::guard
