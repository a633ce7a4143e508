#include "sim/run.hpp"

#include "sim/nemesis.hpp"
#include "sim/user.hpp"
#include "sim/world.hpp"

namespace hf::sim {
namespace {
constexpr Duration kSettleBound =
    60s;  // healed: everything as wanted within this, and the launches, and the last back-off
constexpr Duration kLongestBackOff = 310s;  // of a VM whose starts have failed
constexpr Duration kCalmFor = 8s;

// Runs until the world is as it is wanted; says so if it does not become so.
void settle(World& w) {
  const Time healed = w.queue.now();
  const Time bound = healed + kSettleBound + w.params.vms * w.params.launch_max +
                     (w.params.launch_failure > 0 || w.params.faults.count(Fault::qemu_crash) != 0 ||
                              w.params.slots == 0 || !w.params.faults.empty()
                          ? kLongestBackOff
                          : 0s);
  while (!w.checker.violation()) {
    w.run_until(w.queue.now() + 1s);
    const std::string why = w.checker.unsettled();
    const bool quiet = w.queue.now() - healed > 3 * w.params.timing.quiet / 2;
    if (why.empty() && quiet) return;
    if (w.queue.now() > bound) return w.checker.fail("liveness", why);
  }
}

void storm(World& w, Nemesis& nemesis, User& user) {
  if (w.params.whole_outage) {
    w.run_until(20s);
    w.checker.expect_no_takeover();
    nemesis.whole_outage(w.between(1s, 40s));
    return w.run_until(62s);
  }
  w.run_until(w.between(2s, 12s));
  user.begin();
  nemesis.unleash();
  w.run_until(w.queue.now() + w.params.storm);
  user.end();
}
}  // namespace

RunResult run_seed(std::uint64_t seed, ha::KeptBug bug, bool tracing) {
  World w(Params::from_seed(seed), bug, tracing);
  Nemesis nemesis(w);
  User user(w);
  w.trace([&] { return w.params.text(); });
  w.start();
  user.create_some(w.params.vms);
  storm(w, nemesis, user);
  if (!w.checker.violation()) {
    nemesis.heal();
    settle(w);
    w.checker.expect_calm();
    w.run_until(w.queue.now() + kCalmFor);
  }
  return {w.checker.violation(), w.hash(), w.events(), w.queue.now(), w.checker.counts(), w.lines()};
}

const std::vector<std::pair<std::string_view, ha::KeptBug>>& kept_bugs() {
  using ha::KeptBug;
  static const std::vector<std::pair<std::string_view, KeptBug>> kBugs = {
      {"takeover_without_slot_proof", KeptBug::takeover_without_slot_proof},
      {"takeover_on_old_slot_read", KeptBug::takeover_on_old_slot_read},
      {"takeover_without_conditions", KeptBug::takeover_without_conditions},
      {"thaw_without_claim", KeptBug::thaw_without_claim},
      {"claim_before_freeze_counts", KeptBug::claim_before_freeze_counts},
      {"renewal_counts_from_end", KeptBug::renewal_counts_from_end},
      {"launch_without_admission", KeptBug::launch_without_admission},
      {"unknown_is_success", KeptBug::unknown_is_success},
      {"epoch_not_raised", KeptBug::epoch_not_raised},
      {"keep_running_when_taken_over", KeptBug::keep_running_when_taken_over},
      {"no_brake", KeptBug::no_brake},
      {"resume_when_commit_unknown", KeptBug::resume_when_commit_unknown},
      {"read_settles_commit", KeptBug::read_settles_commit},
      {"resume_on_restart_without_claim", KeptBug::resume_on_restart_without_claim},
      {"commit_without_session", KeptBug::commit_without_session},
      {"activate_ignores_generation", KeptBug::activate_ignores_generation},
      {"run_when_loaded", KeptBug::run_when_loaded},
      {"discard_without_owner", KeptBug::discard_without_owner},
      {"placement_ignores_motions", KeptBug::placement_ignores_motions},
      {"commit_before_held", KeptBug::commit_before_held},
      {"release_when_unknown", KeptBug::release_when_unknown},
      {"claim_ignores_spec", KeptBug::claim_ignores_spec},
      {"placement_ignores_maintenance", KeptBug::placement_ignores_maintenance},
      {"motion_leaves_spec", KeptBug::motion_leaves_spec},
      {"ready_before_equal", KeptBug::ready_before_equal},
      {"motion_takes_new_cpu", KeptBug::motion_takes_new_cpu},
  };
  return kBugs;
}

}  // namespace hf::sim
