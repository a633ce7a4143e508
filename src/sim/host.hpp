#pragma once
// Host: a simulated machine: its clock, the daemon's shell around HostCore, the guard's shell around Guard,
// and the QEMU processes. What the shells do, and in which order, is what the real ones do
// (core/ha/events.hpp). Owned by World.
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "core/ha/guard.hpp"
#include "core/ha/host.hpp"
#include "sim/actor.hpp"
#include "sim/queue.hpp"

namespace hf::sim {

class World;

// What a guest's memory holds: of which boot, and how far it has come.
struct Memory {
  std::uint64_t boot = 0;  // 0: nothing
  std::uint64_t ticks = 0;
  std::string cpu;         // that the guest found when it booted
  bool operator==(const Memory&) const = default;
};

// A QEMU's copy of its disk into another image.
struct Mirror {
  enum class State { copying, ready, held };  // held: the guest's requests wait
  TaskId id;
  std::string image;
  State state = State::copying;
  int to = -1;  // of a motion: the host that makes the image
};

// The one image that the VM's spec names.
std::string image_of(const vm::VmSpec& spec);

// A QEMU process.
struct Process {
  VmId vm;
  Epoch epoch;
  std::uint64_t number = 0;  // unique in the world: a later process of the VM is another one
  bool is_protected = true;
  bool resumed = false;  // QEMU starts stopped
  TaskId motion;           // it was started to wait for the memory that this one brings
  bool ran = false;      // it was resumed once
  Memory memory;
  std::string cpu;       // that its guest sees
  std::string image;     // that it writes
  std::optional<Mirror> mirror;
  bool frozen = false;   // its cgroup
  ha::HoldValue page = ha::kHeld;
  std::optional<ha::Admission> admitted;  // what the guard has written down for its next life
  bool runs = false;                      // its vCPUs execute
};

// A motion process.
struct MotionEngine {
  VmId vm;
  TaskId id;
  std::uint64_t number = 0;  // unique in the world; of a receiver: its token
  std::uint64_t qemu = 0;    // its process
  int peer = -1;             // the other host, once known
  bool sends = false;
  int rounds_left = 0;
  std::string image;         // with disks: the new one
  bool stopped = false;      // the guest, for good
  bool asked = false;        // for the commit
  Time heard{};              // from the other side
};

class Host {
 public:
  Host(World& world, int index);
  const HostId& id() const { return id_; }
  int index() const { return index_; }
  record::HostRecord record() const;
  double clock_rate() const { return rate_; }
  Instant local() const;

  bool on() const { return on_; }
  bool hung() const { return hung_ > 0; }
  void power_on();
  void power_off();
  // The whole machine stands still: guard, daemon and QEMU alike; its clock goes on.
  void hang();
  void wake();
  void start_daemon();
  void crash_daemon();
  void start_guard();
  void crash_guard();
  void pause_guard();
  void resume_guard();
  void crash_engine(const VmId& vm);
  // QEMU ends by itself.
  void end_process(const VmId& vm, ha::ExitKind kind, const std::string& text);

  // Delivers what the store has that this host's watch has not told yet.
  void pump_watch();

  const std::map<VmId, Process>& processes() const { return processes_; }
  const std::map<VmId, MotionEngine>& engines() const { return engines_; }
  const ha::HostCore* core() const { return core_.get(); }
  const ha::Guard* guard() const { return guard_actor.alive() ? &*guard_ : nullptr; }
  // A launch under way: the guard's generation it quotes.
  const std::map<VmId, ha::Generation>& launching() const { return launching_; }
  // The machine stood still a moment ago, and its guard may not have had its first look yet.
  bool awakening() const;
  bool may_write(const Process& process) const;

  Actor daemon, guard_actor;
  int store_cut = 0;      // faults that keep this host from the store
  int watch_stalled = 0;  // faults that keep its watch quiet

 private:
  // The daemon's shell (host_daemon.cpp).
  void deliver(const ha::Event& event);
  void deliver_later(Duration delay, ha::Event event);
  void perform(const ha::Action& action);
  void tick();
  void send_heartbeats();
  void read_slots(int disk);
  void connect_watch();
  void grant(ha::OpId op, Duration ttl);
  void keep_alive(ha::OpId op, ha::LeaseNumber lease);
  void commit(ha::OpId op, const ha::TypedTxn& txn);
  void read(ha::OpId op, const std::string& key);
  void ask_stop(const VmId& vm);
  void kill(const VmId& vm, const std::string& why);

  // A launch, step by step (host_launch.cpp).
  void launch(const ha::action::Launch& launch);
  void confirm_owner(const ha::action::Launch& launch);
  void start_qemu(const ha::action::Launch& launch);
  void admit(const ha::action::Launch& launch, std::uint64_t number);
  void admitted(const ha::action::Launch& launch, std::uint64_t number, const Status& answer);
  void launched(const ha::action::Launch& launch, bool ok, bool refused, const std::string& error);
  // `dropped`: the guard has let go of it, or does not answer.
  void remove_process(const VmId& vm, const Deed& dropped = {});
  void write_disk(const VmId& vm, std::uint64_t number);

  // Motions (host_motion.cpp).
  void prepare(const ha::action::Prepare& prepare);
  void send(const ha::action::Send& send);
  void committed_motion(const ha::action::CommittedMotion& committed);
  void abort_motion(const ha::action::AbortMotion& abort);
  void activate(const ha::action::Activate& activate);
  void record_owner(const ha::action::RecordOwner& record);

  // Disks (host_disks.cpp).
  void write_image(Process& writer);
  void copy(const ha::action::Copy& copy);
  void copy_cold(const record::RelocationRecord& relocation, const std::string& from, const std::string& to);
  Process* mirroring(const VmId& vm, std::uint64_t number, const TaskId& id);
  void mirror_on(const VmId& vm, std::uint64_t number, const TaskId& id);
  void follow_mirror(const VmId& vm, std::uint64_t number, const TaskId& id, int looks);
  void settle_copy(const ha::action::SettleCopy& settle);
  bool settle_image(const ha::action::SettleCopy& settle);

  MotionEngine* engine(const VmId& vm, std::uint64_t number);
  void engine_later(Duration delay, const VmId& vm, std::uint64_t number, std::function<void(MotionEngine&)> deed);
  void say(const MotionEngine& from, const TaskId& id, int to, std::function<void(Host&, MotionEngine&)> what);
  void watch_peer(const VmId& vm, std::uint64_t number);
  void copy_on(MotionEngine& sender);
  void stop_for_good(MotionEngine& sender);
  void load(MotionEngine& receiver, const Memory& memory, int from);
  void end_mirror(const MotionEngine& sender);
  void tell_daemon(ha::Event event);
  void fail_engine(MotionEngine& failing, const std::string& why);
  void close_engine(MotionEngine& closing);
  void end_engine(const VmId& vm);
  void orphan_engines();

  // The guard's shell (host_guard.cpp).
  void ask_guard(std::function<void(ha::Guard&)> call);
  void carry_out_guard();
  void finish_freezing(int life, std::vector<std::pair<VmId, std::uint64_t>> victims);
  void freeze(const VmId& vm, std::uint64_t number);
  void report_guard(bool anyway);
  void arm_deadline();
  void write_slots();
  void write_slot(int disk);
  Process* process(const VmId& vm, std::uint64_t number);

  // Recomputes whether it runs; tells the checker if that has changed.
  void refresh(Process& process);
  void refresh_all();
  // Runs `deed` every `period` of this host's clock while that life of the actor lasts; turns are missed,
  // not made up for.
  void every(Duration period, Actor& actor, int life, std::function<void()> deed);
  Duration world_time(Duration local) const;

  World& w_;
  const int index_;
  const HostId id_;
  const double rate_;
  const Duration offset_;
  bool on_ = false;
  int hung_ = 0;
  Time woke_{-1h};

  std::unique_ptr<ha::HostCore> core_;
  bool leads_ = false;  // as last said in the log
  bool watch_connected_ = false, watch_scheduled_ = false, watch_resumable_ = false;
  std::size_t watch_next_ = 0;
  std::map<int, bool> reading_;  // disk -> a read is under way
  std::map<VmId, ha::Generation> launching_;

  std::optional<ha::Guard> guard_;
  bool deadline_armed_ = false;
  std::map<int, bool> writing_;
  ha::event::GuardReport reported_;
  bool reported_any_ = false;

  std::map<VmId, Process> processes_;
  std::map<VmId, MotionEngine> engines_;
  std::set<TaskId> copying_;  // relocations with a thread of this daemon's
};

}  // namespace hf::sim
