#include "daemon/inventory.hpp"

#include <net/if.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <utility>

#include "api/inventory.hpp"
#include "base/log.hpp"
#include "sys/datastore/datastore.hpp"

namespace hf::daemon {
namespace {
constexpr Duration kLookEvery = 2s;
constexpr Duration kPatience = 2s;

std::string path_on(const record::DatastoreRecord& datastore, const HostId& host) {
  for (const auto& name : {host.text, std::string("*")}) {
    if (auto found = datastore.paths.find(name); found != datastore.paths.end()) return found->second;
  }
  return {};
}
}  // namespace

Inventory::Inventory(record::HostRecord fixed, AskQemu ask_qemu, std::string certificate_pem, Store& store,
                     guard::GuardClient& guard, SharedSurroundings& surroundings)
    : fixed_(std::move(fixed)), ask_qemu_(std::move(ask_qemu)),
      certificate_pem_(std::move(certificate_pem)), store_(store), guard_(guard),
      surroundings_(surroundings), thread_([this] { run(); }) {
  pthread_setname_np(thread_.native_handle(), "hf-inventory");
}

Inventory::~Inventory() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Inventory::set_wanted(std::vector<record::DatastoreRecord> datastores,
                           std::vector<record::NetworkRecord> networks) {
  std::lock_guard lock(mutex_);
  if (told_ && datastores == datastores_ && networks == networks_) return;
  told_ = true;
  datastores_ = std::move(datastores);
  networks_ = std::move(networks);
  look_again_ = true;
  changed_.notify_all();
}

void Inventory::set_barred(std::map<std::string, std::string> barred) {
  std::lock_guard lock(mutex_);
  if (barred == barred_) return;
  barred_ = std::move(barred);
  look_again_ = true;
  changed_.notify_all();
}

void Inventory::check_record() {
  std::lock_guard lock(mutex_);
  check_record_ = look_again_ = true;
  changed_.notify_all();
}

bool Inventory::may_enter() {
  const Status known = api::check_not_removed(store_, fixed_.host.text, certificate_pem_);
  if (!known.ok() && known.code() == Code::denied && !std::exchange(asked_, true)) {
    log(Level::warn, "holdfastd starts anew.", {{"why", known.error().what}});
    ::kill(::getpid(), SIGHUP);
  }
  return known.ok();
}

bool Inventory::know_committed() {
  if (committed_) return true;
  auto stored = store_.get(record::key::kHosts + fixed_.host.text);
  if (!stored.ok() && stored.code() != Code::not_found) return false;
  if (!stored.ok() && !may_enter()) return false;
  record::HostRecord before;
  committed_version_ = stored.ok() ? stored->version : 0;
  if (stored.ok()) {
    auto decoded = record::decode<record::HostRecord>(stored->value);
    if (decoded.ok()) before = std::move(*decoded);
  }
  committed_ = before;
  return true;
}

void Inventory::run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    const bool told = told_;
    look_again_ = false;
    if (std::exchange(check_record_, false)) committed_.reset();
    lock.unlock();
    // Until both are known the guard goes on with the slots it has.
    if (told && know_committed()) look();
    lock.lock();
    changed_.wait_for(lock, kLookEvery, [this] { return stopping_ || look_again_; });
  }
}

Status Inventory::usable(const record::DatastoreRecord& datastore, const std::string& path) {
  auto& worker = workers_[datastore.id.text];
  if (!worker) worker = std::make_unique<datastore::CallWorker>();
  auto checked = worker->run<bool>(kPatience, [path, id = datastore.id]() -> Result<bool> {
    TRY(datastore::check_marker(path, id));
    return true;
  });
  if (checked.ok()) return {};
  if (checked.code() == Code::timed_out) return Error{Code::timed_out, "The storage at " + path + " does not answer."};
  return checked.error();
}

std::vector<std::string> Inventory::renewed_slots() {
  std::vector<std::string> renewed;
  const auto guard = guard_.status();
  if (!guard.ok()) return renewed;
  for (const auto& slot : guard->slots) {
    if (slot.ok) renewed.push_back(slot.datastore.text);
  }
  std::sort(renewed.begin(), renewed.end());
  return renewed;
}

void Inventory::look() {
  std::vector<record::DatastoreRecord> datastores;
  std::vector<record::NetworkRecord> networks;
  std::map<std::string, std::string> barred;
  if (auto facts = ask_qemu_()) {
    fixed_.qemu_version = std::move(facts->version);
    fixed_.cpu = std::move(facts->cpu);
  }
  record::HostRecord next = fixed_;
  {
    std::lock_guard lock(mutex_);
    datastores = datastores_;
    networks = networks_;
    barred = barred_;
  }
  Surroundings found;
  for (const auto& datastore : datastores) {
    const std::string path = path_on(datastore, next.host);
    if (path.empty()) continue;
    Status check = usable(datastore, path);
    const auto bar = barred.find(datastore.id.text);
    if (check.ok() && bar != barred.end()) check = Error{Code::conflict, bar->second};
    if (!check.ok()) {
      next.datastore_problems[datastore.id.text] = check.error().what;
      continue;
    }
    found.datastores[datastore.name] = {datastore.id, path, datastore.shared};
    next.datastores[datastore.id.text] = path;
  }
  for (const auto& network : networks) {
    if (if_nametoindex(network.bridge.c_str()) == 0) continue;
    found.networks[network.name] = {network.bridge, network.vlan};
    next.networks.push_back(network.name);
  }
  next.slot_datastores = choose_slots(datastores, found);
  next.slots_renewed = renewed_slots();
  surroundings_.publish(found);
  publish(std::move(next), found);
}

// A slot that is in use stays in use while its datastore is in the cluster: a stalled one must not make the list flap.
std::vector<std::string> Inventory::choose_slots(const std::vector<record::DatastoreRecord>& wanted,
                                                 const Surroundings& found) const {
  std::vector<std::string> slots;
  for (const auto& id : committed_->slot_datastores) {
    if (std::any_of(wanted.begin(), wanted.end(), [&](const auto& d) { return d.id.text == id; })) slots.push_back(id);
  }
  for (const auto& [name, datastore] : found.datastores) {
    const bool listed = std::find(slots.begin(), slots.end(), datastore.id.text) != slots.end();
    if (datastore.shared && !listed && slots.size() < kSlotsMax) slots.push_back(datastore.id.text);
  }
  return slots;
}

void Inventory::tell_guard(const std::vector<std::string>& slots, const Surroundings& found) {
  for (const auto& [name, datastore] : found.datastores) slot_paths_[datastore.id.text] = datastore.path;
  std::vector<guard::SlotTarget> targets;
  for (const auto& id : slots) {
    if (auto path = slot_paths_.find(id); path != slot_paths_.end()) targets.push_back({DatastoreId(id), path->second});
  }
  if (const Status told = guard_.set_slots(targets); !told.ok()) {
    log(Level::warn, "The guard was not told its slots.", {{"why", told.error().what}});
  }
}

void Inventory::publish(record::HostRecord next, const Surroundings& found) {
  const auto& before = committed_->slot_datastores;
  if (next == *committed_) return tell_guard(before, found);
  // safety: observers prove a host's stillness by the slots its record names. So the guard counts a slot only once the
  // record that names it is committed, and has stopped counting one before the record drops it.
  std::vector<std::string> both;
  for (const auto& id : before) {
    if (std::find(next.slot_datastores.begin(), next.slot_datastores.end(), id) != next.slot_datastores.end())
      both.push_back(id);
  }
  tell_guard(both, found);
  Txn txn;
  const std::string key = record::key::kHosts + next.host.text;
  txn.conditions.push_back({key, committed_version_});
  txn.writes.push_back({key, record::encode(next), LeaseId{}, false});
  auto committed = store_.commit(txn);
  if (!committed.ok()) return;
  if (!committed->done) return committed_.reset();  // an earlier write did land, or the host was removed: look again
  committed_ = next;
  committed_version_ = committed->version;
  tell_guard(next.slot_datastores, found);
}

}  // namespace hf::daemon
