#pragma once
// StoreShell: carries the deciding code's store actions out and brings the answers, and the watch, back as events.
// Store calls run on two small pools: one for the lease alone, so that nothing ever waits in front of a renewal.
#include <memory>
#include <optional>
#include <string>

#include "core/ha/events.hpp"
#include "daemon/event_outbox.hpp"
#include "daemon/mailbox.hpp"
#include "daemon/worker_pool.hpp"
#include "port/store.hpp"

namespace hf::daemon {

// The store's transaction for a typed one; events become writes under events/.
Txn to_txn(const ha::TypedTxn& typed, const HostId& self);
// A change of the store as the deciding code sees it; none for a record that cannot be read: what was known stays.
// Only an owner record that cannot be read counts: as one that gives the right to nobody.
std::optional<ha::KeyState> to_key_state(const Change& change);

class StoreShell final : private Watcher {
 public:
  // store and mailbox must outlive this.
  StoreShell(HostId self, Store& store, Mailbox& mailbox);
  ~StoreShell() override;

  // Begins the watch; retried in the background until it succeeds.
  void start();

  void carry_out(const ha::action::Grant& grant);
  void carry_out(const ha::action::KeepAlive& keep_alive);
  void carry_out(const ha::action::Commit& commit);
  void carry_out(const ha::action::Read& read);
  // To the log at once, and to the store as soon as that can be reached.
  void emit(record::EventRecord event);

 private:
  void on_reset(const Snapshot& snapshot) override;
  void on_changes(const std::vector<Change>& changes, Version version) override;
  void on_lost(const Error& why) override;

  const HostId self_;
  Store& store_;
  Mailbox& mailbox_;
  WorkerPool lease_pool_{"hf-lease", 1};
  WorkerPool pool_{"hf-store", 4};
  EventOutbox outbox_{store_};
  std::unique_ptr<Watch> watch_;
};

}  // namespace hf::daemon
