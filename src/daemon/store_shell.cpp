#include "daemon/store_shell.hpp"

#include "api/event_stamp.hpp"
#include "base/break_point.hpp"
#include "base/log.hpp"
#include "sys/process/clock.hpp"

namespace hf::daemon {
namespace {
namespace key = record::key;

ha::Outcome outcome_of(const Error& error) {
  if (error.code == Code::not_found) return ha::Outcome::refused;
  if (error.code == Code::unavailable) return ha::Outcome::unavailable;
  // Whatever else it says, nothing proves that it was not done.
  return ha::Outcome::unknown;
}

// Where a motion's record is about to be written, or was: "before.ready", "after.committed".
void break_at(std::string_view when, const ha::TypedTxn& txn) {
  for (const auto& write : txn.writes) {
    const auto* motion = std::get_if<record::MotionRecord>(&write.value);
    if (motion != nullptr) break_point(std::string(when) + "." + std::string(record::name_of(motion->phase)));
  }
}

// Ended, and by this write.
bool is_new_end(const record::TaskRecord& task) {
  using State = record::TaskState;
  return task.finished == 0 && (task.state == State::succeeded || task.state == State::failed);
}

// events/ and secrets/ mean nothing to the deciding code, and there are many events.
bool concerns_decisions(const std::string& at) {
  return at.compare(0, key::kEvents.size(), key::kEvents) != 0 && at.compare(0, 8, "secrets/") != 0;
}
}  // namespace

Txn to_txn(const ha::TypedTxn& typed, const HostId& self) {
  Txn txn;
  for (const auto& condition : typed.conditions) txn.conditions.push_back({condition.key, condition.version});
  for (const auto& write : typed.writes) {
    const bool erase = std::holds_alternative<std::monostate>(write.value);
    std::string text = erase ? "" : record::encode(write.value);
    if (const auto* status = std::get_if<record::VmStatus>(&write.value)) {
      record::VmStatus dated = *status;  // the deciding code knows no wall clock
      dated.since = sys::wall_ms();
      text = record::encode(dated);
    }
    if (const auto* task = std::get_if<record::TaskRecord>(&write.value); task != nullptr && is_new_end(*task)) {
      record::TaskRecord dated = *task;
      dated.finished = sys::wall_ms();
      text = record::encode(dated);
    }
    txn.writes.push_back({write.key, std::move(text), LeaseId{write.lease}, erase});
  }
  for (auto event : typed.events) {
    api::stamp(event, self, sys::wall_ms());
    log(Level::info, event.text, {{"event", event.kind}, {"vm", event.vm.text}});
    txn.writes.push_back({key::kEvents + event.id, record::encode(event), LeaseId{}, false});
  }
  return txn;
}

std::optional<ha::KeyState> to_key_state(const Change& change) {
  ha::KeyState state{change.entry.key, change.entry.version, {}};
  if (change.erased) return state;
  auto record = record::decode_at(change.entry.key, change.entry.value);
  if (record.ok()) {
    state.value = std::move(*record);
    return state;
  }
  log(Level::error, "A record of the store cannot be read.", {{"why", record.error().what}});
  if (change.entry.key.compare(0, key::kOwners.size(), key::kOwners) != 0) return std::nullopt;
  // safety: an owner record nobody can read gives nobody a right, us least of all.
  record::OwnerRecord unreadable;
  unreadable.phase = record::OwnerRecord::Phase::claimed;
  unreadable.host = HostId("(unreadable)");
  state.value = unreadable;
  return state;
}

StoreShell::StoreShell(HostId self, Store& store, Mailbox& mailbox)
    : self_(std::move(self)), store_(store), mailbox_(mailbox) {}

StoreShell::~StoreShell() { watch_.reset(); }

void StoreShell::start() {
  auto watch = store_.watch("", *this);
  if (watch.ok()) {
    watch_ = std::move(*watch);
    return;
  }
  log(Level::warn, "The store cannot be watched yet.", {{"why", watch.error().what}});
}

void StoreShell::carry_out(const ha::action::Grant& grant) {
  lease_pool_.submit([this, grant] {
    const Instant began = sys::boot_now();
    auto lease = store_.grant(grant.ttl);
    if (!lease.ok()) log(Level::warn, "No store session.", {{"why", lease.error().what}});
    mailbox_.post(ha::event::LeaseGranted{grant.op, lease.ok(), lease.ok() ? lease->number : 0, began});
  });
}

void StoreShell::carry_out(const ha::action::KeepAlive& keep_alive) {
  lease_pool_.submit([this, keep_alive] {
    const Instant began = sys::boot_now();
    const Status kept = store_.keep_alive(LeaseId{keep_alive.lease});
    if (!kept.ok()) log(Level::warn, "The store session was not renewed.", {{"why", kept.error().what}});
    mailbox_.post(ha::event::LeaseKept{keep_alive.op, kept.ok() ? ha::Outcome::done : outcome_of(kept.error()), began});
  });
}

void StoreShell::carry_out(const ha::action::Commit& commit) {
  pool_.submit([this, commit] {
    break_at("before", commit.txn);
    auto committed = store_.commit(to_txn(commit.txn, self_));
    break_at("after", commit.txn);
    ha::event::TxnDone done{commit.op, ha::Outcome::done, 0};
    if (!committed.ok()) {
      done.outcome = outcome_of(committed.error());
      log(Level::warn, "A store write failed.", {{"why", committed.error().what}});
    } else {
      done.outcome = committed->done ? ha::Outcome::done : ha::Outcome::refused;
      done.version = committed->version;
    }
    mailbox_.post(done);
  });
}

void StoreShell::carry_out(const ha::action::Read& read) {
  pool_.submit([this, read] {
    ha::event::KeyRead answer;
    answer.op = read.op;
    // list, not get: it also says as of which version of the store the key is absent.
    auto snapshot = store_.list(read.key);
    answer.ok = snapshot.ok();
    if (answer.ok) {
      answer.as_of = snapshot->version;
      answer.state.key = read.key;
      for (const auto& entry : snapshot->entries) {
        if (entry.key != read.key) continue;
        if (auto state = to_key_state(Change{entry, false})) answer.state = std::move(*state);
        else answer.ok = false;
      }
    }
    mailbox_.post(std::move(answer));
  });
}

void StoreShell::emit(record::EventRecord event) {
  api::stamp(event, self_, sys::wall_ms());
  log(event.severity == "error" ? Level::error : event.severity == "warning" ? Level::warn : Level::info, event.text,
      {{"event", event.kind}, {"vm", event.vm.text}});
  outbox_.add(std::move(event));
}

void StoreShell::on_reset(const Snapshot& snapshot) {
  ha::event::StoreReset reset;
  reset.as_of = snapshot.version;
  for (const auto& entry : snapshot.entries) {
    if (!concerns_decisions(entry.key)) continue;
    if (auto state = to_key_state(Change{entry, false})) reset.all.push_back(std::move(*state));
  }
  mailbox_.post(std::move(reset));
}

void StoreShell::on_changes(const std::vector<Change>& changes, Version version) {
  ha::event::StoreChanged changed;
  changed.as_of = version;
  for (const auto& change : changes) {
    if (!concerns_decisions(change.entry.key)) continue;
    if (auto state = to_key_state(change)) changed.changes.push_back(std::move(*state));
  }
  mailbox_.post(std::move(changed));
}

void StoreShell::on_lost(const Error& why) { log(Level::warn, "The store's watch is lost.", {{"why", why.what}}); }

}  // namespace hf::daemon
