// Goal: every cell of the table in guard.hpp, and the orders of events that would let a VM run without a
// right.
#include "core/ha/guard.hpp"

#include <gtest/gtest.h>

namespace hf::ha {
namespace {

using State = Guard::State;
using Actions = std::vector<GuardAction>;
constexpr Duration kFreezeAfter = 5s;
constexpr std::uint64_t kSecond = 1'000'000'000;
const VmId kVm("vm-1");

Instant at(Duration time) { return Instant(time); }
Admission admission_of(const VmId& vm, bool is_protected = true) {
  return Admission{vm, Epoch{3}, "/cg/" + vm.text, "/run/" + vm.text, is_protected};
}

// A guard with one VM in `state`, contact renewed at 100 s, so deadline 105 s; no actions pending.
Guard guard_in(State state) {
  Guard guard(GuardTiming{kFreezeAfter});
  guard.renewed(Channel::store, at(100s), at(100s));
  EXPECT_TRUE(guard.admit(admission_of(kVm, state != State::unguarded), guard.generation(), at(100s)).ok());
  if (state == State::frozen) guard.freeze_all("test", at(100s));
  EXPECT_EQ(guard.vms().at(kVm).state, state);
  (void)guard.take_actions();  // those of the way here are not the test's matter
  return guard;
}
std::uint64_t generation_of(const Guard& guard) { return guard.vms().at(kVm).generation; }
State state_of(const Guard& guard) { return guard.vms().at(kVm).state; }

struct Cell {
  State before;
  Actions actions;
  State after;
};

const Actions kFreezeIt = {SetHold{kVm, kHeld}, Freeze{kVm}};

TEST(GuardTable, renewed) {
  for (const Cell& cell : {Cell{State::unguarded, {}, State::unguarded},
                           Cell{State::running, {SetHold{kVm, 107 * kSecond}}, State::running},
                           Cell{State::frozen, {}, State::frozen}}) {
    Guard guard = guard_in(cell.before);
    guard.renewed(Channel::slot, at(102s), at(103s));
    EXPECT_EQ(guard.take_actions(), cell.actions);
    EXPECT_EQ(state_of(guard), cell.after);
  }
}

TEST(GuardTable, time_reaches_the_deadline) {
  for (const Cell& cell :
       {Cell{State::unguarded, {}, State::unguarded}, Cell{State::running, kFreezeIt, State::frozen},
        Cell{State::frozen, {}, State::frozen}}) {
    Guard guard = guard_in(cell.before);
    guard.tick(at(105s) - 1ns);
    EXPECT_EQ(guard.take_actions(), Actions{});
    guard.tick(at(105s));
    EXPECT_EQ(guard.take_actions(), cell.actions);
    EXPECT_EQ(state_of(guard), cell.after);
  }
}

TEST(GuardTable, freeze_all) {
  for (const Cell& cell :
       {Cell{State::unguarded, {}, State::unguarded}, Cell{State::running, kFreezeIt, State::frozen},
        Cell{State::frozen, {}, State::frozen}}) {
    Guard guard = guard_in(cell.before);
    guard.freeze_all("asked for", at(101s));
    EXPECT_EQ(guard.take_actions(), cell.actions);
    EXPECT_EQ(state_of(guard), cell.after);
  }
}

TEST(GuardTable, thaw_with_fresh_contact_and_the_present_generation) {
  for (const Cell& cell :
       {Cell{State::unguarded, {}, State::unguarded}, Cell{State::running, {}, State::running},
        Cell{State::frozen, {SetHold{kVm, 105 * kSecond}, Thaw{kVm}}, State::running}}) {
    Guard guard = guard_in(cell.before);
    EXPECT_TRUE(guard.thaw(kVm, Epoch{3}, generation_of(guard), at(101s)).ok());
    EXPECT_EQ(guard.take_actions(), cell.actions);
    EXPECT_EQ(state_of(guard), cell.after);
  }
}

TEST(GuardTable, thaw_with_another_epoch_is_refused_in_every_state) {
  for (State state : {State::unguarded, State::running, State::frozen}) {
    Guard guard = guard_in(state);
    EXPECT_EQ(guard.thaw(kVm, Epoch{4}, generation_of(guard), at(101s)).code(), Code::conflict);
    EXPECT_EQ(guard.take_actions(), Actions{});
    EXPECT_EQ(state_of(guard), state);
  }
}

TEST(GuardTable, admit_the_same_again) {
  for (const Cell& cell : {Cell{State::unguarded, {SetHold{kVm, kNeverHeld}}, State::unguarded},
                           Cell{State::running, {SetHold{kVm, 105 * kSecond}}, State::running},
                           Cell{State::frozen, {}, State::frozen}}) {
    Guard guard = guard_in(cell.before);
    const Status status = guard.admit(guard.vms().at(kVm).admission, guard.generation(), at(101s));
    EXPECT_EQ(status.ok(), cell.before != State::frozen);
    EXPECT_EQ(guard.take_actions(), cell.actions);
    EXPECT_EQ(state_of(guard), cell.after);
  }
}

TEST(GuardTable, admit_differently_is_refused_in_every_state) {
  for (State state : {State::unguarded, State::running, State::frozen}) {
    Guard guard = guard_in(state);
    Admission other = guard.vms().at(kVm).admission;
    other.epoch = Epoch{4};
    EXPECT_EQ(guard.admit(other, guard.generation(), at(101s)).code(), Code::conflict);
    EXPECT_EQ(guard.take_actions(), Actions{});
    EXPECT_EQ(state_of(guard), state);
  }
}

TEST(GuardTable, drop_holds_what_is_left_in_every_state) {
  for (State state : {State::unguarded, State::running, State::frozen}) {
    Guard guard = guard_in(state);
    guard.drop(kVm, Epoch{2}, at(101s));  // an earlier process's
    EXPECT_EQ(guard.take_actions(), Actions{});
    guard.drop(kVm, Epoch{3}, at(101s));
    EXPECT_EQ(guard.take_actions(), (Actions{SetHold{kVm, kHeld}}));
    EXPECT_TRUE(guard.vms().empty());
  }
}

TEST(GuardSafety, nothing_protected_is_admitted_before_the_first_renewal_or_after_the_deadline) {
  Guard guard(GuardTiming{kFreezeAfter});
  EXPECT_EQ(guard.admit(admission_of(kVm), guard.generation(), at(1s)).code(), Code::unavailable);
  guard.renewed(Channel::store, at(1s), at(1s));
  EXPECT_EQ(guard.admit(admission_of(kVm), guard.generation(), at(6s)).code(), Code::unavailable);
  EXPECT_TRUE(guard.vms().empty());
  EXPECT_TRUE(guard.admit(admission_of(kVm, false), guard.generation(), at(6s)).ok());
}

TEST(GuardSafety, a_renewal_handled_after_the_deadline_does_not_revive) {
  Guard guard = guard_in(State::running);
  guard.renewed(Channel::slot, at(104s), at(160s));  // the guard itself was stopped in between
  EXPECT_EQ(guard.take_actions(), kFreezeIt);
  guard.renewed(Channel::store, at(161s), at(161s));
  EXPECT_EQ(guard.take_actions(), Actions{});
  EXPECT_EQ(state_of(guard), State::frozen);
}

TEST(GuardSafety, the_deadline_counts_from_the_start_of_the_renewal_and_never_falls) {
  Guard guard = guard_in(State::running);
  guard.renewed(Channel::slot, at(103s), at(104s));
  EXPECT_EQ(guard.deadline(), at(108s));
  guard.renewed(Channel::store, at(102s), at(104s));
  EXPECT_EQ(guard.deadline(), at(108s));
  guard.renewed(Channel::store, at(500s), at(105s));  // a start that lies in the future
  EXPECT_EQ(guard.deadline(), at(110s));
}

TEST(GuardSafety, one_channel_is_enough) {
  Guard guard = guard_in(State::running);
  for (int second = 101; second < 200; ++second) {
    guard.renewed(Channel::slot, at(std::chrono::seconds(second)), at(std::chrono::seconds(second)));
  }
  EXPECT_EQ(state_of(guard), State::running);
}

TEST(GuardSafety, thaw_needs_contact) {
  Guard guard = guard_in(State::frozen);
  EXPECT_EQ(guard.thaw(kVm, Epoch{3}, generation_of(guard), at(105s)).code(), Code::unavailable);
  EXPECT_EQ(guard.take_actions(), Actions{});
}

TEST(GuardSafety, a_confirmation_begun_before_a_newer_freeze_is_refused) {
  Guard guard = guard_in(State::frozen);
  const std::uint64_t first = generation_of(guard);
  ASSERT_TRUE(guard.thaw(kVm, Epoch{3}, first, at(101s)).ok());
  guard.tick(at(106s));
  guard.renewed(Channel::store, at(107s), at(107s));
  EXPECT_GT(generation_of(guard), first);
  EXPECT_EQ(guard.thaw(kVm, Epoch{3}, first, at(108s)).code(), Code::conflict);
  EXPECT_EQ(guard.thaw(kVm, Epoch{3}, 0, at(108s)).code(), Code::conflict);
  EXPECT_EQ(state_of(guard), State::frozen);
  EXPECT_TRUE(guard.thaw(kVm, Epoch{3}, generation_of(guard), at(108s)).ok());
}

TEST(GuardSafety, a_claim_begun_before_contact_lapsed_admits_nothing) {
  Guard guard(GuardTiming{kFreezeAfter});
  guard.renewed(Channel::store, at(100s), at(100s));
  const std::uint64_t before = guard.generation();
  guard.renewed(Channel::store, at(106s), at(106s));  // the deadline was 105 s
  EXPECT_GT(guard.generation(), before);
  EXPECT_EQ(guard.admit(admission_of(kVm), before, at(106s)).code(), Code::conflict);
  EXPECT_TRUE(guard.vms().empty());
  EXPECT_TRUE(guard.admit(admission_of(kVm), guard.generation(), at(106s)).ok());
}

TEST(GuardSafety, generations_grow_over_a_restart_of_the_guard) {
  Guard before = guard_in(State::frozen);
  Guard after(GuardTiming{kFreezeAfter});
  after.restore(admission_of(kVm), kHeld, true, at(101s));
  EXPECT_GT(generation_of(after), generation_of(before));
}

TEST(GuardRestart, what_was_frozen_or_held_is_latched_and_the_rest_keeps_its_deadline) {
  Guard guard(GuardTiming{kFreezeAfter});
  guard.restore(admission_of(VmId("frozen")), 103 * kSecond, true, at(101s));
  guard.restore(admission_of(VmId("held")), 101 * kSecond, false, at(101s));
  guard.restore(admission_of(VmId("running")), 103 * kSecond, false, at(101s));
  guard.restore(admission_of(VmId("local"), false), kNeverHeld, false, at(101s));
  EXPECT_EQ(guard.vms().at(VmId("frozen")).state, State::frozen);
  EXPECT_EQ(guard.vms().at(VmId("held")).state, State::frozen);
  EXPECT_EQ(guard.vms().at(VmId("running")).state, State::running);
  EXPECT_EQ(guard.vms().at(VmId("local")).state, State::unguarded);
  EXPECT_EQ(guard.deadline(), at(103s));
  (void)guard.take_actions();  // of the restart
  guard.tick(at(103s));
  EXPECT_EQ(guard.take_actions(), (Actions{SetHold{VmId("running"), kHeld}, Freeze{VmId("running")}}));
}

TEST(GuardRestart, a_page_cannot_give_more_than_a_renewal_could) {
  Guard guard(GuardTiming{kFreezeAfter});
  guard.restore(admission_of(kVm), kNeverHeld, false, at(101s));
  EXPECT_EQ(guard.deadline(), at(106s));
  EXPECT_EQ(guard.take_actions(), (Actions{SetHold{kVm, 106 * kSecond}}));
}

TEST(GuardAlone, a_single_host_never_freezes) {
  Guard guard(GuardTiming{kFreezeAfter, true});
  EXPECT_TRUE(guard.admit(admission_of(kVm), guard.generation(), at(1s)).ok());
  EXPECT_EQ(guard.take_actions(), (Actions{SetHold{kVm, kNeverHeld}}));
  guard.tick(at(1'000'000s));
  EXPECT_EQ(guard.take_actions(), Actions{});
}

}  // namespace
}  // namespace hf::ha
