#pragma once
// Pause: a guest of this host that QEMU holds because a disk's I/O failed (werror=stop, rerror=stop), as the agent
// knows it. QEMU has kept the failed request and tries it again when the guest is continued; if that fails too it
// pauses the guest again, so trying is harmless. Nothing to do with the guard's freeze. Pure; owned by the agent.
#include <string>

#include "core/ha/events.hpp"

namespace hf::ha {

class Pause {
 public:
  Pause(event::Paused paused, Instant now);

  Epoch epoch() const { return paused_.epoch; }
  // Paused again after a try.
  void again(const event::Paused& paused);
  // QEMU lets it go on; whether its disks work shows in the next moments.
  void go_on(Instant now);
  // It has gone on for long enough.
  bool is_over(Instant now) const;
  // Whether it is time to try; the next one is due kContinueRetry later.
  bool take_turn(Instant now);

  // For VmStatus::message: what is wrong and what to do.
  std::string why(const vm::VmSpec& spec) const;

 private:
  event::Paused paused_;
  Instant try_at_;
  Instant went_on_at_{};  // 0: it stands still
};

record::EventRecord paused_event(const record::VmRecord& vm, const record::VmStatus& status);
record::EventRecord continued_event(const record::VmRecord& vm);

}  // namespace hf::ha
