#include "core/motion/motion.hpp"

#include "core/ha/task_end.hpp"

namespace hf::motion {
namespace {
using record::MotionRecord;
using record::OwnerRecord;
namespace key = record::key;

constexpr Duration kRetry = 250ms;
}  // namespace

Standing standing(const MotionRecord& motion, const View& view) {
  const auto* owner = view.owner(motion.vm);
  if (owner == nullptr || owner->record.phase != OwnerRecord::Phase::claimed) return Standing::over;
  const OwnerRecord& now = owner->record;
  if (now.host == motion.to && now.epoch == motion.epoch.next() && now.motion == motion.id) return Standing::arrived;
  if (motion.phase == MotionRecord::Phase::committed || now.host != motion.from || now.epoch != motion.epoch) {
    return Standing::over;
  }
  return Standing::pending;
}

OwnerRecord committed_owner(const MotionRecord& motion, const OwnerRecord& before) {
  OwnerRecord next = before;  // safety: the guest keeps what it was started with
  next.phase = OwnerRecord::Phase::claimed;
  next.host = motion.to;
  next.epoch = motion.epoch.next();
  next.session = motion.session_to;
  next.reason = "vmotion from " + motion.from.text;
  next.motion = motion.id;
  return next;
}

bool takes_disks(const MotionRecord& motion) { return !motion.disks.datastore.empty(); }

void name_files(record::RelocationRecord& relocation, const vm::VmSpec& before) {
  const auto after = vm::relocated(before, relocation.what);
  if (!after.ok()) return;
  relocation.old_files = vm::files_only_in(before, *after);
  relocation.new_files = vm::files_only_in(*after, before);
  if (after->datastore == before.datastore) return;
  relocation.old_home = before.datastore;
  relocation.new_home = after->datastore;
}

record::RelocationRecord remains(const MotionRecord& motion, const vm::VmSpec& before,
                                 record::RelocationRecord::Phase phase) {
  record::RelocationRecord left;
  left.id = motion.id;
  left.vm = motion.vm;
  left.epoch = motion.epoch;
  left.phase = phase;
  left.what = motion.disks;
  left.host = motion.from;
  left.cleaner = phase == record::RelocationRecord::Phase::committed ? motion.from : motion.to;
  name_files(left, before);
  return left;
}

void erase(const Stored<MotionRecord>& motion, const vm::VmSpec& spec, TypedTxn& txn) {
  const VmId& vm = motion.record.vm;
  // safety: takes away what the commit insists on. One that was done has changed this version.
  txn.conditions.push_back({key::kMotions + vm.text, motion.version});
  txn.writes.push_back({key::kMotions + vm.text, {}, 0});
  if (!takes_disks(motion.record) || motion.record.phase == MotionRecord::Phase::committed) return;
  txn.conditions.push_back({key::kRelocations + vm.text, 0});
  txn.writes.push_back(
      {key::kRelocations + vm.text, remains(motion.record, spec, record::RelocationRecord::Phase::abandoned), 0});
}

std::vector<ha::KeyState> told_by_source(const ha::event::Arrived& word, const HostId& self, const View& view) {
  const auto* motion = view.motion(word.vm);
  const bool known = motion != nullptr && motion->record.id == word.id && motion->record.to == self &&
                     motion->record.phase == MotionRecord::Phase::ready;
  // The word says nothing of the spec that names the disks' new images: the store does.
  if (known && takes_disks(motion->record)) return {};
  if (!known || word.version <= view.version || standing(motion->record, view) != Standing::pending) return {};
  MotionRecord committed = motion->record;
  committed.phase = MotionRecord::Phase::committed;
  return {{key::kOwners + word.vm.text, word.version, committed_owner(committed, view.owner(word.vm)->record)},
          {key::kMotions + word.vm.text, word.version, committed}};
}

std::optional<TypedTxn> ending(const VmId& vm, const TaskId& id, const Error& why, const View& view) {
  const auto* motion = view.motion(vm);
  if (motion == nullptr || motion->record.id != id || standing(motion->record, view) == Standing::arrived) {
    return std::nullopt;
  }
  auto record = view.vms.find(vm);
  TypedTxn txn;
  erase(*motion, record == view.vms.end() ? vm::VmSpec{} : record->second.record.spec, txn);
  ha::end_command(vm, id, why, view, txn);
  return txn;
}

void Endings::reconcile(const View& view, Instant now, Actions& out) {
  for (auto it = wanted_.begin(); it != wanted_.end();) {
    auto& [id, wanted] = *it;
    if (wanted.op != 0 || now < wanted.next_at) {
      ++it;
      continue;
    }
    auto txn = swap_(wanted.vm, id, wanted.why, view);
    if (!txn) {
      it = wanted_.erase(it);
      continue;
    }
    wanted.op = make_op_();
    out.emplace_back(ha::action::Commit{wanted.op, std::move(*txn)});
    ++it;
  }
}

bool Endings::on(const ha::event::TxnDone& done, Instant now) {
  for (auto& [id, wanted] : wanted_) {
    if (wanted.op != done.op || wanted.op == 0) continue;
    // Whatever came of it: the view tells, and each swap insists on what it saw.
    wanted.op = 0;
    wanted.next_at = now + kRetry;
    return true;
  }
  return false;
}

}  // namespace hf::motion
