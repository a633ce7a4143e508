#pragma once
// What goes into a host's deciding code and what comes out: HostCore::step(Event, Instant) -> Actions. The shell
// (daemon or simulator) turns actions into deeds, in order, and reports each deed's outcome as an event. No deed may
// be reported as failed when its outcome is not known: Outcome::unknown says so.
#include <cstdint>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "base/ids.hpp"
#include "base/result.hpp"
#include "base/time.hpp"
#include "core/ha/view.hpp"
#include "core/record/records.hpp"
#include "core/vm/spec.hpp"

namespace hf::ha {

using OpId = std::uint64_t;         // names a request of this host until its outcome has come back
using LeaseNumber = std::int64_t;   // 0: none
using Generation = std::uint64_t;   // of the guard: grows each time its deadline has passed

enum class Outcome {
  done,
  refused,      // a condition did not hold, or the lease has ended: certainly not done
  unavailable,  // certainly not done
  unknown,      // perhaps done
};

// A store transaction on typed records.
struct TypedTxn {
  struct Condition {
    std::string key;
    Version version = 0;  // 0: must not exist
    bool operator==(const Condition&) const = default;
  };
  struct Write {
    std::string key;
    record::Any value;      // monostate: erase
    LeaseNumber lease = 0;
  };
  std::vector<Condition> conditions;
  std::vector<Write> writes;
  std::vector<record::EventRecord> events;  // the shell gives them id, time and host, and writes them in the same swap
};

enum class ExitKind { guest_shutdown, guest_panic, qemu_crash, killed };

namespace event {
struct Tick {};
struct StoreReset { std::vector<KeyState> all; Version as_of = 0; };
struct StoreChanged { std::vector<KeyState> changes; Version as_of = 0; };
struct TxnDone { OpId op = 0; Outcome outcome = Outcome::unknown; Version version = 0; };
struct KeyRead { OpId op = 0; bool ok = false; KeyState state; Version as_of = 0; };
struct LeaseGranted { OpId op = 0; bool ok = false; LeaseNumber lease = 0; Instant began; };
struct LeaseKept { OpId op = 0; Outcome outcome = Outcome::unknown; Instant began; };
// began/ended: of the read call. A failed read has ok = false; `absent`: the storage answered that there is no such
// slot.
struct SlotRead {
  HostId host;
  std::string datastore;
  bool ok = false;
  std::uint64_t fingerprint = 0;
  Instant began{}, ended{};
  bool absent = false;
};
struct HeartbeatHeard { HostId from; };
// lapsed: the deadline has passed and no renewal has come since. `frozen`: latched VMs.
struct GuardReport { Generation generation = 0; bool lapsed = false; std::set<VmId> frozen; };
// The processes found. paused: QMP says that the guest is paused, and no disk error is the reason: a motion stopped it.
// incoming: it waits for memory, or has it and has not run yet. No motion process of an earlier life is left.
// memory_tracker, here and in the next ones: as in VmStatus.
struct Adopted {
  struct Found { VmId vm; Epoch epoch; TaskId motion = {}; std::string memory_tracker = {}; };  // motion: as in Exited
  std::vector<Found> running, paused, incoming;
};
// ok: runs. refused: the guard's deadline passed or its generation changed, nothing runs. Else error says why,
// nothing runs.
struct Launched {
  VmId vm;
  Epoch epoch;
  bool ok = false;
  bool refused = false;
  Error error;
  std::string memory_tracker = {};
};
// motion: the one that its process was prepared for; empty: it was launched. Several motions may prepare one epoch.
struct Exited { VmId vm; Epoch epoch; ExitKind kind = ExitKind::qemu_crash; std::string text; TaskId motion = {}; };
// QEMU holds the guest because of that disk's error, again after each Continue that was in vain; or it lets it go on.
struct Paused { VmId vm; Epoch epoch; std::string disk; bool no_room = false; std::string text; };
struct WentOn { VmId vm; Epoch epoch; };

// Motions (core/motion). `id` is the motion's; what comes of an earlier one is ignored. Any may come late or twice.
// Destination: what became of Prepare. Not ok: nothing is left of it, but for files of disks that were to come.
struct Prepared {
  VmId vm;
  TaskId id;
  bool ok = false;
  std::string endpoint, token;
  Error error;
  std::string memory_tracker = {};
  std::uint64_t room_bytes = 0;  // as in the MotionRecord
};
// Source: the copy goes on.
struct MotionProgress { VmId vm; TaskId id; int percent = 0; };
// Source: the guest stands still for good, the destination has all of it and said "loaded". The motion process waits
// for CommittedMotion or AbortMotion, and does nothing to the guest meanwhile, whatever happens.
struct MotionReady { VmId vm; TaskId id; };
// Either side: its motion process has given up, or is gone. Whether the guest runs is not said.
struct MotionFailed { VmId vm; TaskId id; Error error; };
// Source, after CommittedMotion: what it took.
struct MotionFinished { VmId vm; TaskId id; record::MotionReport report; };
// Source: what became of AbortMotion. ok: the guest runs (or will when it is thawed).
struct MotionAborted { VmId vm; Epoch epoch; bool ok = false; };
// Destination: the source's word that its commit was done, with that version.
struct Arrived { VmId vm; TaskId id; Version version = 0; };
// Destination: what became of Activate. refused: by the guard; nothing ran. stood: since its memory was there; 0: it is
// not known.
struct Activated { VmId vm; Epoch epoch; bool ok = false; bool refused = false; Error error; Duration stood{}; };
struct OwnerRecorded { VmId vm; Epoch epoch; bool ok = false; };

// Disks that move (core/motion/relocator.hpp). `id` is the relocation's.
// The copy goes on: percent of what was there when it began.
struct CopyProgress { VmId vm; TaskId id; int percent = 0; };
// Old and new images are equal, and stay so: no request of the guest's reaches a disk until SettleCopy.
struct CopyHeld { VmId vm; TaskId id; record::RelocationReport report; };
// It has given up; the guest goes on with the old images.
struct CopyFailed { VmId vm; TaskId id; Error error; };
// What became of SettleCopy. held: as the report's held_us, if it is known here.
struct CopySettled { VmId vm; TaskId id; bool ok = false; std::uint64_t held_us = 0; };
}  // namespace event

using Event =
    std::variant<event::Tick, event::StoreReset, event::StoreChanged, event::TxnDone, event::KeyRead,
                 event::LeaseGranted, event::LeaseKept, event::SlotRead, event::HeartbeatHeard,
                 event::GuardReport, event::Adopted, event::Launched, event::Exited,
                 event::Prepared, event::MotionProgress, event::MotionReady, event::MotionFailed, event::MotionFinished,
                 event::MotionAborted, event::Arrived, event::Activated, event::OwnerRecorded,
                 event::Paused, event::WentOn,
                 event::CopyProgress, event::CopyHeld, event::CopyFailed, event::CopySettled>;

namespace action {
struct Grant { OpId op = 0; std::chrono::seconds ttl{0}; };
struct KeepAlive { OpId op = 0; LeaseNumber lease = 0; };
struct Commit { OpId op = 0; TypedTxn txn; };
struct Read { OpId op = 0; std::string key; };
// safety: tells the guard that the store lease was renewed by a request that began then.
struct Renewed { Instant began; SessionId session; };
// safety: confirm the owner record on the datastore, start QEMU stopped, have the guard admit it under `generation`,
// resume. The guest gets owner.cpu. Any refusal on the way: kill what was started, report Launched{ok=false}.
struct Launch { record::VmRecord vm; record::OwnerRecord owner; Generation generation = 0; };
struct AskStop { VmId vm; };
// SIGKILL to QEMU, and to its motion process if there is one; its end comes as Exited.
struct Kill { VmId vm; std::string why; };
struct Reset { VmId vm; };
// safety: the guard thaws only if `generation` is still its own and its contact is fresh.
struct Thaw { VmId vm; Epoch epoch; Generation generation = 0; };
// safety: lets only that epoch's guest go on, and only if a disk error paused it: so it was admitted and resumed
// before.
struct Continue { VmId vm; Epoch epoch; };
struct Emit { record::EventRecord event; };

// Destination: start QEMU with `-incoming defer` and `-S`, its hold page held and nothing admitted, and a motion
// process that listens. Reports Prepared. Its QEMU's end afterwards comes as Exited with that epoch.
// The guest gets the owner's CPU, with which it was started, as with Launch. Disks that go along: the spec names their
// new images, which are made first, and the owner until now is written on their datastore.
struct Prepare { record::VmRecord vm; record::MotionRecord motion; Epoch epoch; record::OwnerRecord owner; };
// Source: start the motion process; reports MotionProgress, then MotionReady, or MotionFailed.
struct Send { record::VmRecord vm; record::MotionRecord motion; };
// Source: safety: the motion is over and nothing of it can commit any more: end its motion process if there is one, see
// that it has taken its hands off the guest, then QMP `cont`. Also for a guest found paused. Reports MotionAborted. The
// guard's freeze stays over it.
struct AbortMotion { VmId vm; Epoch epoch; };
// Source: tell the motion process that the commit was done with that version, so that the other side hears Arrived.
struct CommittedMotion { VmId vm; TaskId id; Version version = 0; };
// Destination: safety: have the guard admit the VM under `generation`, and only then QMP `cont`; then announce-self.
// Reports Activated; may come again. No datastore is asked: RecordOwner follows.
struct Activate { record::VmRecord vm; record::OwnerRecord owner; Generation generation = 0; };
// Write the owner record on the VM's datastore, where no larger epoch stands. Reports OwnerRecorded.
struct RecordOwner { record::VmRecord vm; record::OwnerRecord owner; };

// Makes the new images and copies into them, by the VM's QEMU if it is live. Reports CopyProgress, at least every ten
// seconds, then CopyHeld; or CopyFailed.
struct Copy { record::VmRecord vm; record::RelocationRecord relocation; };
// safety: no commit of this relocation is on its way any more. new_images: it was done: the VM's QEMU goes on with the
// new images, or is killed; the old ones are deleted. old_images: it never will be: the other way round. none: this
// host has no part in it any more; it stops copying and leaves QEMU as it is. Reports CopySettled; may come again.
enum class Keep { new_images, old_images, none };
struct SettleCopy { record::RelocationRecord relocation; Keep keep = Keep::none; };
}  // namespace action

using Action =
    std::variant<action::Grant, action::KeepAlive, action::Commit, action::Read, action::Renewed,
                 action::Launch, action::AskStop, action::Kill, action::Reset, action::Thaw, action::Emit,
                 action::Prepare, action::Send, action::AbortMotion, action::CommittedMotion, action::Activate,
                 action::RecordOwner, action::Continue, action::Copy, action::SettleCopy>;
using Actions = std::vector<Action>;

// Bugs that are kept on purpose: each switches one safety rule off, and the simulator must find it. Never set in a
// daemon.
enum class KeptBug {
  none,
  takeover_without_slot_proof,      // the lease's end alone counts as proof
  takeover_on_old_slot_read,        // a slot read from before the lease ended counts
  takeover_without_conditions,      // the swap does not insist on the host's incarnation
  thaw_without_claim,               // contact again is enough to thaw
  claim_before_freeze_counts,       // the guard ignores the generation
  renewal_counts_from_end,          // a renewal is counted from when its answer came
  launch_without_admission,         // QEMU is resumed whatever the guard says
  unknown_is_success,               // a lost reply to a claim counts as done
  epoch_not_raised,                 // a restart in place keeps the epoch
  keep_running_when_taken_over,     // the returning host does not kill
  no_brake,                         // no quiet time after the leader's own contact broke
  resume_when_commit_unknown,       // the source lets the guest go on when the commit's answer was lost
  read_settles_commit,              // a read that shows the old owner counts as "not done", though the swap may come
  resume_on_restart_without_claim,  // a guest found paused goes on before its owner record was claimed again
  commit_without_session,           // the commit does not insist on the destination's session
  activate_ignores_generation,      // the destination quotes the guard's generation of now, not the confirmed one
  run_when_loaded,                  // the destination runs as soon as it has everything
  discard_without_owner,            // a restarted destination ends what it finds, whoever owns it
  placement_ignores_motions,        // the memory that a VM in motion needs at its destination counts as free
  motion_takes_new_cpu,             // the destination gives a guest the CPU of its spec of now
  commit_before_held,               // disks move on as soon as the new images were equal once
  release_when_unknown,             // the old images go on when the answer to a relocation's commit was lost
  claim_ignores_spec,               // a claim does not insist on the spec that it starts the VM from
  placement_ignores_maintenance,    // what gives a host a VM does not insist that it is not in maintenance
  motion_leaves_spec,               // the commit of a motion that takes disks along does not name their new images
  ready_before_equal,               // a motion that takes disks along commits before their new images are equal
};

}  // namespace hf::ha
