#pragma once
// Observer: what this host has seen of the others: their sessions (through the view), their slots, their network
// heartbeats; and what follows from it. Every host observes, so that a new leader need not begin anew.
// Pure; owned by the control thread through HostCore.
#include <map>
#include <set>
#include <string>

#include "core/ha/events.hpp"
#include "core/ha/timing.hpp"

namespace hf::ha {

// | health      | store session | network heartbeat | slots                       | VMs of the host              |
// |-------------|---------------|-------------------|-----------------------------|------------------------------|
// | alive       | yes           | any               | any                         | its own business             |
// | agent_down  | no            | no                | at least one moves          | run on; nobody takes them    |
// | no_store    | no            | yes               | any                         | run on; nobody takes them    |
// | suspect     | no            | no                | not yet still, or unreadable| run on; wait                 |
// | dead        | no            | no                | all still for takeover_after| proven unable: may be taken  |
// | unknown     | never seen    |                   |                             | it has none                  |
enum class Health { alive, agent_down, no_store, suspect, dead, unknown };
std::string_view name_of(Health health);

struct Assessment {
  Health health = Health::unknown;
  std::string why;  // the evidence, a phrase
};

class Observer {
 public:
  explicit Observer(Timing timing, KeptBug bug = KeptBug::none) : timing_(timing), bug_(bug) {}

  void on(const event::SlotRead& read);
  void on(const event::HeartbeatHeard& heard, Instant now) { heard_[heard.from] = now; }
  // To be called whenever the view has changed: notes since when each session has been absent.
  void look_at(const View& view, Instant now);

  // safety: `dead` is the proof that the host cannot run VMs (ARCHITECTURE.md, "proof of inability").
  Assessment assess(const HostId& host, const View& view, Instant now) const;
  // safety: what a swap must insist on for the proof still to hold when it is carried out.
  std::vector<TypedTxn::Condition> proof_conditions(const HostId& host, const View& view) const;

 private:
  struct Slot {
    std::uint64_t fingerprint = 0;
    Instant changed_seen{};    // end of the first read that showed this content
    Instant same_began{};      // begin of the latest read that showed it
    bool readable = false;
  };
  struct Absence {
    Version incarnation = 0;
    Instant since{};
  };
  // How many of the host's slots are proven still, moving, or neither.
  struct SlotSummary { int still = 0, moving = 0, open = 0; };
  SlotSummary summarize(const record::HostRecord& host, Instant absent_since, Instant now) const;

  const Timing timing_;
  const KeptBug bug_;
  std::map<std::pair<HostId, std::string>, Slot> slots_;
  std::map<HostId, Instant> heard_;
  std::map<HostId, Absence> absent_;
};

}  // namespace hf::ha
