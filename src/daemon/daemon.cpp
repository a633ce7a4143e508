#include "daemon/daemon.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/random.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>
#include <utility>

#include "api/client.hpp"
#include "api/handler.hpp"
#include "api/operations.hpp"
#include "api/server.hpp"
#include "base/log.hpp"
#include "config/store/open_store.hpp"
#include "core/record/level.hpp"
#include "daemon/beat.hpp"
#include "daemon/control.hpp"
#include "daemon/inventory.hpp"
#include "daemon/local_services.hpp"
#include "daemon/member_keeper.hpp"
#include "daemon/motions.hpp"
#include "daemon/pruner.hpp"
#include "daemon/slot_reader.hpp"
#include "daemon/store_shell.hpp"
#include "daemon/task_runner.hpp"
#include "daemon/version.hpp"
#include "daemon/vm_shell.hpp"
#include "sys/process/cgroup.hpp"
#include "sys/process/host_facts.hpp"
#include "sys/qemu/accelerator.hpp"
#include "sys/qemu/cpu_models.hpp"
#include "sys/qemu/qemu_hypervisor.hpp"

namespace hf::daemon {
namespace {

constexpr std::uint64_t kSetAsideMib = 1024;  // for the host itself, at least
constexpr std::chrono::seconds kStoreRetry{1};

// The cluster's record, from the store or, while that is away, from the copy of the last start: a daemon that restarts
// during an outage must take its VMs up all the same.
Result<record::ClusterRecord> cluster_record(Store& store, const std::string& copy_path) {
  auto entry = store.get(record::key::kCluster);
  if (entry.ok()) {
    std::ofstream(copy_path) << entry->value;
    return record::decode<record::ClusterRecord>(entry->value);
  }
  if (entry.code() == Code::not_found) {
    return Error{Code::not_found, "The store holds no cluster. Make one with: holdfast cluster init"};
  }
  std::ifstream copy(copy_path);
  std::stringstream text;
  text << copy.rdbuf();
  if (!text.str().empty()) return record::decode<record::ClusterRecord>(text.str());
  return entry.error();
}

// main() waits for these signals once the daemon has begun; before that there is nothing to end in order.
void wait_to_retry() {
  sigset_t ending, before;
  sigemptyset(&ending);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&ending, signal);
  pthread_sigmask(SIG_UNBLOCK, &ending, &before);
  std::this_thread::sleep_for(kStoreRetry);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

record::ClusterRecord wait_for_cluster(Store& store, const std::string& copy_path) {
  std::string said;
  for (;;) {
    auto cluster = cluster_record(store, copy_path);
    if (cluster.ok()) return *cluster;
    if (cluster.error().what != said) {
      said = cluster.error().what;
      log(Level::warn, "Waiting for the store.", {{"why", said}});
    }
    wait_to_retry();
  }
}

// A removed host does nothing that the others would see, for as long as it is one.
void wait_while_removed(Store& store, const std::string& host, const std::string& certificate_pem) {
  bool said = false;
  for (;;) {
    const Status known = api::check_not_removed(store, host, certificate_pem);
    if (known.ok() || known.code() != Code::denied) return;
    if (!std::exchange(said, true)) log(Level::error, known.error().what);
    wait_to_retry();
  }
}

std::uint64_t random_seed() {
  std::uint64_t seed = 0;
  while (getrandom(&seed, sizeof seed, 0) != sizeof seed) continue;
  return seed;
}

Result<qemu::QemuOptions> qemu_options(const config::HostConfig& config) {
  qemu::QemuOptions options;
  options.run_dir = config.run_dir;
  options.cgroup_root = config.cgroup_root;
  if (options.cgroup_root.empty()) {
    TRY_ASSIGN(const std::string mount, process::cgroup2_mount());
    options.cgroup_root = mount + "/holdfast";
  }
  options.log_dir = config.state_dir + "/log";
  options.qemu_binary = config.qemu.binary;
  options.shim = config.qemu.shim;
  if (config.qemu.uid >= 0) options.uid = static_cast<uid_t>(config.qemu.uid);
  if (config.qemu.gid >= 0) options.gid = static_cast<gid_t>(config.qemu.gid);
  options.nice = config.qemu.nice;
  options.accelerator = qemu::choose_accelerator(qemu::read_kvm_facts());
  options.command = vm::qemu_command;
  return options;
}

Result<record::HostRecord> host_record(const config::HostConfig& config, const qemu::QemuOptions& qemu) {
  TRY_ASSIGN(const auto facts, process::host_facts());
  TRY_ASSIGN(const std::string version, process::qemu_version(config.qemu.binary));
  record::HostRecord host;
  host.host = HostId(config.host);
  host.version = kVersion;
  host.api_address = config.api_advertise;
  const auto colon = config.api_advertise.rfind(':');
  host.heartbeat_address = config.api_advertise.substr(0, colon) +
                           config.heartbeat_listen.substr(config.heartbeat_listen.rfind(':'));
  host.cpus = config.cpus > 0 ? config.cpus : facts.cpus;
  const std::uint64_t aside = std::max(kSetAsideMib, facts.memory_mib / 10);
  host.memory_mib = config.memory_mib > 0 ? config.memory_mib : facts.memory_mib - std::min(aside, facts.memory_mib);
  host.accelerator = qemu::name_of(qemu.accelerator.accelerator);
  host.accelerator_reason = qemu.accelerator.reason;
  host.qemu_version = version;
  host.level = record::kLevel;
  auto cpu = qemu::host_cpu(config.qemu.binary, host.accelerator);
  if (cpu.ok()) host.cpu = std::move(*cpu);
  else log(Level::warn, "The CPU models of this host are not known.", {{"why", cpu.error().what}});
  return host;
}

// What the QEMU program says of itself, each time it was exchanged: by the package's upgrade.
Inventory::AskQemu ask_again(const std::string& binary, const std::string& accelerator) {
  // Shared, since a std::function is copied.
  auto watch = std::make_shared<qemu::BinaryWatch>(binary);
  return [=]() -> std::optional<Inventory::QemuFacts> {
    if (!watch->changed()) return std::nullopt;
    auto version = process::qemu_version(binary);
    auto cpu = qemu::host_cpu(binary, accelerator);
    if (version.ok() && cpu.ok()) return Inventory::QemuFacts{std::move(*version), std::move(*cpu)};
    log(Level::warn, "The new QEMU does not answer.",
        {{"why", version.ok() ? cpu.error().what : version.error().what}});
    return std::nullopt;
  };
}

Motions::Place motion_place(const config::HostConfig& config, const qemu::QemuOptions& qemu) {
  Motions::Place place;
  // Of this release: it lies beside this program.
  place.program.path = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "holdfast-motion";
  place.program.log = qemu.log_dir + "/motion.log";
  place.program.cgroup = qemu.cgroup_root + "/motions";
  place.address = !config.motion_address.empty()
                      ? config.motion_address
                      : config.api_advertise.substr(0, config.api_advertise.rfind(':'));
  place.ports = config.motion_ports;
  place.pki = config.pki;
  place.run_dir = [qemu](const VmId& vm) { return qemu.dir_of(vm).path; };
  return place;
}

ha::event::GuardReport to_report(const guard::GuardStatus& status) {
  ha::event::GuardReport report;
  report.generation = status.generation;
  report.lapsed = !status.contact_fresh;
  for (const auto& vm : status.vms) {
    if (vm.state == ha::Guard::State::frozen) report.frozen.insert(vm.vm);
  }
  return report;
}

// Members are made in order and destroyed in reverse: the API ends first, the mailbox last.
class RealDaemon final : public Daemon {
 public:
  RealDaemon(const config::HostConfig& config, std::unique_ptr<Store> store,
             const record::ClusterRecord& cluster, const qemu::QemuOptions& qemu, const record::HostRecord& host,
             pki::Credentials credentials)
      : timing_(ha::Timing::from_heartbeat(std::chrono::milliseconds(cluster.heartbeat_ms))),
        host_(host.host),
        store_(std::move(store)),
        guard_(config.run_dir + "/guard.sock"),
        hypervisor_(qemu),
         store_shell_(host.host, *store_, mailbox_),
         inventory_(host, ask_again(config.qemu.binary, host.accelerator), credentials.own.certificate_pem,
                   *store_, guard_, surroundings_),
        motions_(motion_place(config, qemu), mailbox_),
        vm_shell_(host.host, hypervisor_, guard_, surroundings_, motions_, mailbox_),
        slot_reader_(mailbox_, timing_.slot_read),
        operations_(*store_, api::Operations::real_world(host.host)),
        task_runner_(host.host, operations_, surroundings_),
        control_(host.host, timing_, random_seed(),
                 {mailbox_, store_shell_, vm_shell_, slot_reader_, guard_,
                  [this](const ha::View& view) { on_view(view); },
                  [this](auto barred) { inventory_.set_barred(std::move(barred)); }}),
        subscription_(config.run_dir + "/guard.sock", guard_callbacks()),
        beat_(host.host, config.heartbeat_listen, timing_.heartbeat, *store_, mailbox_, control_),
        pruner_(*store_, control_),
        member_keeper_(config, control_),
        services_(config, timing_, hypervisor_, guard_, control_),
        peers_(credentials),
        handler_(*store_, services_, &peers_, api::Operations::real_world(host.host)),
        server_(handler_, std::move(credentials)) {}

  Status begin(const config::HostConfig& config) {
    TRY(timing_.validate());
    for (const auto& row : timing_.table()) {
      log(Level::info, "timing",
          {{"name", row.name}, {"ms", std::to_string(row.value / std::chrono::milliseconds(1))}});
    }
    TRY(vm_shell_.adopt());
    store_shell_.start();
    return server_.start(config.api_listen);
  }

 private:
  guard::GuardSubscription::Callbacks guard_callbacks() {
    guard::GuardSubscription::Callbacks callbacks;
    callbacks.on_status = [this](const guard::GuardStatus& status) { mailbox_.post(to_report(status)); };
    // The event says that something changed; what holds now, all of it, is in the status.
    callbacks.on_event = [this](const guard::GuardEvent&) {
      if (auto status = guard_.status(); status.ok()) mailbox_.post(to_report(*status));
    };
    callbacks.on_lost = [](const Error& why) { log(Level::warn, "The guard is away.", {{"why", why.what}}); };
    return callbacks;
  }

  void on_view(const ha::View& view) {
    const bool there = view.hosts.contains(host_);
    if (std::exchange(there_, there) && !there) inventory_.check_record();
    std::vector<record::DatastoreRecord> datastores;
    for (const auto& [id, stored] : view.datastores) datastores.push_back(stored.record);
    std::vector<record::NetworkRecord> networks;
    for (const auto& [name, stored] : view.networks) networks.push_back(stored.record);
    inventory_.set_wanted(std::move(datastores), std::move(networks));
    task_runner_.look_at(view);
  }

  const ha::Timing timing_;
  const HostId host_;
  bool there_ = false;  // in the inventory; control thread only
  Mailbox mailbox_;
  std::unique_ptr<Store> store_;
  guard::GuardClient guard_;
  qemu::QemuHypervisor hypervisor_;
  SharedSurroundings surroundings_;
  StoreShell store_shell_;
  Inventory inventory_;
  Motions motions_;
  VmShell vm_shell_;
  SlotReader slot_reader_;
  api::Operations operations_;
  TaskRunner task_runner_;
  Control control_;
  guard::GuardSubscription subscription_;
  Beat beat_;
  Pruner pruner_;
  MemberKeeper member_keeper_;
  LocalServices services_;
  api::HttpPeers peers_;
  api::Handler handler_;
  api::Server server_;
};

// safety: a guard that took this for a single host never freezes; with other hosts about, it must.
Status refuse_lone_guard(const config::HostConfig& config) {
  if (config.store.kind != config::StoreKind::etcd) return {};
  guard::GuardClient guard(config.run_dir + "/guard.sock");
  const auto status = guard.status();
  if (!status.ok() || status->deadline != Instant::max()) return {};
  return Error{Code::conflict, "holdfast-guard still runs with the configuration of a single host: restart it, then "
                               "holdfastd. VMs run on."};
}

}  // namespace

Result<std::unique_ptr<Daemon>> Daemon::start(const config::HostConfig& given) {
  const config::HostConfig config = with_known_endpoints(given);
  TRY(process::require_root());
  std::error_code failed;
  for (const auto& folder : {config.run_dir, config.state_dir, config.state_dir + "/log"}) {
    std::filesystem::create_directories(folder, failed);
    if (failed) return from_errno("Cannot make " + folder, failed.value());
  }
  TRY(refuse_lone_guard(config));
  TRY_ASSIGN(auto credentials, pki::load(std::filesystem::path(config.pki.ca).parent_path().string()));
  TRY_ASSIGN(auto qemu, qemu_options(config));
  TRY_ASSIGN(const auto host, host_record(config, qemu));
  log(Level::info, "accelerator", {{"name", host.accelerator}, {"why", host.accelerator_reason}});
  TRY_ASSIGN(auto store, config::open_store(config.store));
  const auto cluster = wait_for_cluster(*store, config.state_dir + "/cluster.json");
  wait_while_removed(*store, config.host, credentials.own.certificate_pem);
  // safety: the guard freezes by the configuration's heartbeat, the cluster takes over by its record's.
  if (cluster.heartbeat_ms != config.heartbeat_ms) {
    return Error{Code::invalid,
                 fmt::format("The cluster's heartbeat is {} ms, but this host's config.json says {} ms. Set "
                             "heartbeat_ms there and restart holdfast-guard and holdfastd.",
                             cluster.heartbeat_ms, config.heartbeat_ms)};
  }
  // safety: it would take an owner record that it misreads for nobody's. VMs run on without it.
  TRY(record::check_level(cluster.level));
  auto daemon = std::make_unique<RealDaemon>(config, std::move(store), cluster, std::move(qemu), host,
                                             std::move(credentials));
  TRY(daemon->begin(config));
  return std::unique_ptr<Daemon>(std::move(daemon));
}

}  // namespace hf::daemon
