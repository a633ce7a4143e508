#pragma once
// What is true of one motion, as a view shows it, and the swaps that change it. Pure functions, and Endings, which
// carries out that a motion shall be over. ARCHITECTURE.md "How a VM moves" is the protocol; the source's part is in
// source.hpp, the destination's in destination.hpp, the leader's in planner.hpp.
//
// safety: what keeps a motion right, whatever is lost, late or doubled:
//   1. The commit is one swap of owners/<vm> and motions/<vm>. It insists on the version of both, on the source's
//      session and on the destination's. So nothing commits after the record was erased, the owner record was written
//      again, either daemon was restarted and has published, or the VM was taken over.
//   2. The source stops the guest before it asks. It goes on only if no commit was sent, or that one can never be done.
//      An answer that was lost: a read that still shows the old owner proves nothing, since the swap may come late. So
//      the source writes the owner record again, unchanged: that version is then gone, and the commit with it.
//   3. A process that waits for memory runs only under an owner record that names its host, its epoch and a motion. A
//      claim after a takeover could have the same host and epoch; it names no motion.
//   4. Its guard admits it under the generation of `ready`, or of a later claim of its own. If contact lapsed in
//      between, that generation is gone, and the host claims again first: the swap that a takeover makes loses or wins.
#include <functional>
#include <map>
#include <optional>

#include "core/ha/events.hpp"

namespace hf::motion {

using ha::Actions;
using ha::OpId;
using ha::Stored;
using ha::TypedTxn;
using ha::View;

enum class Standing {
  pending,  // nothing is committed: the source has the right to run
  arrived,  // the commit was done, and nothing has happened to the right since
  over,     // it can never commit, or what it brought is gone: the record is to be erased
};
Standing standing(const record::MotionRecord& motion, const View& view);

// The owner record as the commit writes it.
record::OwnerRecord committed_owner(const record::MotionRecord& motion, const record::OwnerRecord& before);

// Disks go along: their new images are made at the destination, and the source's QEMU writes both until the guest
// stands still. safety: the commit then insists on the VM's spec and names the new images in it, by the same swap.
bool takes_disks(const record::MotionRecord& motion);

// Writes into a relocation what each side of it has alone, from the spec before it.
void name_files(record::RelocationRecord& relocation, const vm::VmSpec& before);

// The note of what is to be deleted after a motion that took disks along: committed: the old files, by the source;
// abandoned: the new ones, by the destination. `before`: the spec without the commit.
// REQUIRES: takes_disks(motion)
record::RelocationRecord remains(const record::MotionRecord& motion, const vm::VmSpec& before,
                                 record::RelocationRecord::Phase phase);

// Adds to `txn` that a motion which has not committed is erased, and leaves the note of its files.
void erase(const Stored<record::MotionRecord>& motion, const vm::VmSpec& spec, TypedTxn& txn);

// What the view shall take in on the source's word; empty: the word says nothing new, or nothing that fits.
std::vector<ha::KeyState> told_by_source(const ha::event::Arrived& word, const HostId& self, const View& view);

// Erases the motion and ends its task with `why`. nullopt: there is none with that id, or it has arrived.
// The user's cancel is this swap as well.
std::optional<TypedTxn> ending(const VmId& vm, const TaskId& id, const Error& why, const View& view);

// The swap that ends one; nullopt: there is nothing to be ended any more.
using EndingSwap = std::optional<TypedTxn> (*)(const VmId& vm, const TaskId& id, const Error& why, const View& view);

// Motions, or what else `swap` ends, that this host wants to be over, until they are. Owned by a role.
class Endings {
 public:
  explicit Endings(std::function<OpId()> make_op, EndingSwap swap = ending)
      : make_op_(std::move(make_op)), swap_(swap) {}
  void want(const VmId& vm, const TaskId& id, Error why) { wanted_.try_emplace(id, Wanted{vm, std::move(why), 0, {}}); }
  bool wants(const TaskId& id) const { return wanted_.count(id) != 0; }
  void reconcile(const View& view, Instant now, Actions& out);
  // Returns true if the event was its own.
  bool on(const ha::event::TxnDone& done, Instant now);

 private:
  struct Wanted {
    VmId vm;
    Error why;
    OpId op = 0;
    Instant next_at{};
  };
  const std::function<OpId()> make_op_;
  const EndingSwap swap_;
  std::map<TaskId, Wanted> wanted_;
};

}  // namespace hf::motion
