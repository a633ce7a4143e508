#pragma once
// Receiver: the destination's half. Its threads ("hf-recv-N", one a data connection) check what comes and put it into
// guest memory, which nobody else may use before Committed. All of it is discarded at start: what the source never
// sends reads as zeros.
//
// Memory: 2 MiB for each data connection, and the device state (at most kDeviceStateMax). One thread drives it:
//   next() = GuestStopped, next() = DeviceState, tell_loaded(), next() = Committed.
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "engine/connection.hpp"
#include "engine/guest_memory.hpp"

namespace hf::engine {

// The guest stands still for its stop: the first of its device state is here, pages may still come.
struct GuestStopped {};
// Every round that the source had started is in place: the memory and this belong together.
struct DeviceState {
  std::vector<std::byte> bytes;
};
// The source has seen that this host owns the VM. (The store says so too, if this word is lost.)
struct Committed {
  std::uint64_t version = 0;  // that the store gave it
};
using ReceiverEvent = std::variant<GuestStopped, DeviceState, Committed>;

struct ReceiverProgress {
  std::uint64_t rounds = 0;  // whole ones
  std::uint64_t pages = 0;
  std::uint64_t bytes = 0;  // on the wire
};

class Receiver {
 public:
  // `memory` must outlive it.
  static Result<std::unique_ptr<Receiver>> start(GuestMemory& memory, Connections connections);
  virtual ~Receiver() = default;

  // Waits for what the source has to say. Any error is final: the copy is worth nothing any more, unless Committed came
  // before. Code::unavailable: the source is gone or silent; corrupt: damaged or hostile data; failed: the source gave
  // up, with its reason.
  virtual Result<ReceiverEvent> next() = 0;
  virtual Status tell_loaded() = 0;

  // Any thread. next() ends with Code::failed and this text; the source is told.
  virtual void abort(const std::string& why) = 0;
  // Any thread.
  virtual ReceiverProgress progress() const = 0;
};

}  // namespace hf::engine
