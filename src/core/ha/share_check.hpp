#pragma once
// ShareCheck: is a datastore that looks shared really one storage? A marker can be copied, with all that is on a disk;
// then two hosts believe to have the same datastore and each has its own. Seen by its heartbeat slots: a host that is
// well and says that it renews its slot there, but whose slot stands still here for 3 * takeover_after, writes to
// another storage. Pure; owned by the control thread.
//
// The side with fewer hosts is the wrong one: where more of the others' slots stand still than move, this host must not
// use the datastore (two hosts: both must not; nobody can say which of them is right).
//
// safety (proof of inability): slots read there prove nothing about anybody. The verdict therefore outlasts the other
// host's session, and ends only when its slot is seen to move, or the host no longer names it.
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/ha/events.hpp"
#include "core/ha/timing.hpp"

namespace hf::ha {

class ShareCheck {
 public:
  explicit ShareCheck(Timing timing) : timing_(timing) {}

  void on(const event::SlotRead& read);
  // To be called at every tick.
  void look_at(const View& view, const HostId& self, Instant now);

  struct Verdict {
    std::vector<HostId> elsewhere;  // whose slots stand still here
    bool usable = true;             // by this host, for shared VMs
    std::string text;               // a sentence
    bool operator==(const Verdict&) const = default;
  };
  // By datastore id: those on which somebody's slot stands still. As of the last look.
  const std::map<std::string, Verdict>& verdicts() const { return verdicts_; }

 private:
  struct Seen {
    std::uint64_t fingerprint = 0;
    bool known = false;  // some content, or that there is none, was seen
    bool absent = false;
    Instant since{};  // the latest time at which it moved, could not be read, or was not promised to move
    Instant moved{};  // the latest time at which it was seen to move
    Instant read_began{};  // of the latest read that was answered
    bool still = false;
  };
  void judge(const View& view, const HostId& self, Instant now);

  const Timing timing_;
  std::map<std::pair<std::string, HostId>, Seen> seen_;  // datastore, host
  std::map<std::string, Verdict> verdicts_;
};

}  // namespace hf::ha
