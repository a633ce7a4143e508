#pragma once
// How holdfastd talks to its guard. GuardClient: one request at a time, each reconnects if it must.
// GuardSubscription: what the guard pushes. Both thread-safe; both go on over restarts of the guard.
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "guard/protocol.hpp"

namespace hf::guard {

class GuardClient {
 public:
  static constexpr Duration kTimeout = 2s;  // of one call
  explicit GuardClient(std::string socket_path) : path_(std::move(socket_path)) {}
  ~GuardClient();
  GuardClient(const GuardClient&) = delete;
  GuardClient& operator=(const GuardClient&) = delete;

  // All calls: Code::unavailable: the guard cannot be reached, nothing was done; Code::outcome_unknown: it
  // did not answer; all may be repeated. Otherwise the guard's own refusal, see ha::Guard.

  // The store session was renewed by a call that began at `started` (CLOCK_BOOTTIME).
  Status renewed(Instant started, const SessionId& session);
  // The datastores that carry this host's slot, all of them.
  Status set_slots(const std::vector<SlotTarget>& slots);
  // `generation`: the host's when the claim (the compare-and-swap) was begun.
  Status admit(const ha::Admission& admission, std::uint64_t generation);
  // `generation`: as for admit.
  Status thaw(const VmId& vm, Epoch epoch, std::uint64_t generation);
  // After the VM's QEMU is gone.
  Status drop(const VmId& vm, Epoch epoch);
  Status freeze_all(const std::string& reason);
  Result<GuardStatus> status();

 private:
  Result<GuardStatus> call(const Request& request);
  Result<GuardStatus> exchange(const std::string& packet);
  void disconnect();

  const std::string path_;
  std::mutex mutex_;
  int fd_ = -1;  // under mutex_
};

class GuardSubscription {
 public:
  // Called from the subscription's thread. `on_status` first, and again after each reconnect (events may have
  // been lost); `on_lost` when contact ends.
  struct Callbacks {
    std::function<void(const GuardStatus&)> on_status;
    std::function<void(const GuardEvent&)> on_event;
    std::function<void(const Error&)> on_lost;
  };
  GuardSubscription(const std::string& socket_path, Callbacks callbacks);
  // After it returns, no callback is called any more. Not to be called from a callback.
  ~GuardSubscription();
  GuardSubscription(const GuardSubscription&) = delete;
  GuardSubscription& operator=(const GuardSubscription&) = delete;

 private:
  struct Worker;
  std::unique_ptr<Worker> worker_;
};

}  // namespace hf::guard
