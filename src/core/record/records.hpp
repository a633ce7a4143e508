#pragma once
// The records of the store: what each key holds. Every record is JSON with a "format" number; a missing field takes its
// default. Members that only a later version knows are not understood, and kept when the record is written again
// (`later`). doc/formats.md is the page for readers.
//
//   cluster                 ClusterRecord   made by `cluster init`
//   hosts/<host>            HostRecord      written by that host
//   sessions/<host>         SessionRecord   bound to the host's store lease: its presence is the proof of store contact
//   incarnations/<host>     SessionRecord   the host's latest session, written with sessions/<host> but kept when the
//                                           lease ends
//   maintenance/<host>      MaintenanceRecord  while it is there, the host is given no VM
//   leader                  LeaderRecord    bound to the same lease
//   datastores/<id>         DatastoreRecord
//   datastore-names/<name>  the DatastoreId that has the name
//   networks/<name>         NetworkRecord
//   vms/<vm>                VmRecord        what is wanted
//   vm-names/<name>         the VmId that has the name (uniqueness by create-if-absent)
//   owners/<vm>             OwnerRecord     the right to run: safety rests on this key alone
//   motions/<vm>            MotionRecord    a vMotion under way; erased when it is over
//   relocations/<vm>        RelocationRecord  disks on their way to another datastore, and what is to be deleted after
//   status/<vm>             VmStatus        what was last observed, by the owner's host
//   tasks/<task>            TaskRecord
//   events/<id>             EventRecord     id sorts by time
//   secrets/ca              the cluster CA's key, readable by hosts only
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/ids.hpp"
#include "base/result.hpp"
#include "base/time.hpp"
#include "core/vm/relocation.hpp"
#include "core/vm/spec.hpp"

namespace hf::record {

namespace key {
inline const std::string kCluster = "cluster";
inline const std::string kLeader = "leader";
inline const std::string kHosts = "hosts/";
inline const std::string kSessions = "sessions/";
inline const std::string kIncarnations = "incarnations/";
inline const std::string kMaintenance = "maintenance/";
inline const std::string kDatastores = "datastores/";
inline const std::string kDatastoreNames = "datastore-names/";
inline const std::string kNetworks = "networks/";
inline const std::string kVms = "vms/";
inline const std::string kVmNames = "vm-names/";
inline const std::string kOwners = "owners/";
inline const std::string kMotions = "motions/";
inline const std::string kRelocations = "relocations/";
inline const std::string kStatus = "status/";
inline const std::string kTasks = "tasks/";
inline const std::string kEvents = "events/";
inline const std::string kCaSecret = "secrets/ca";
}  // namespace key

// What a version of Holdfast writes into the store that the one before does not know, counted. The cluster's level is
// the lowest that all its hosts have had; what came with a level is used from then on. A daemon of a lower level than
// its cluster's does not start.
//   1: the first. 2: CPU baselines (EVC), moves of disks, alone or with a VM, and QEMU's own migration.
inline constexpr int kLevel = 2;

struct ClusterRecord {
  std::string id;
  std::string name;
  WallMs created = 0;
  int heartbeat_ms = 1000;  // the base all times derive from (core/ha/timing.hpp)
  int level = 1;            // only ever raised, by the leader
  std::string evc = {};     // the CPU baseline, a rung of core/cpu/ladder.hpp; empty: none
  bool evc_auto = false;    // it was chosen, as the best one that every host had then
  std::string later = {};
  bool operator==(const ClusterRecord&) const = default;
};

// What guests can be given of a host's processor, as its QEMU said.
struct HostCpu {
  std::string vendor;  // "GenuineIntel": what guests see under KVM; empty under TCG, where the model says it
  std::string name;    // for people: "AMD EPYC 7763 64-Core Processor"
  std::vector<std::string> runs;      // the models that run here whole, besides the ladder's
  // Each rung of the ladder that its QEMU knows -> what it lacks here. Less what no emulator has, under TCG.
  std::map<std::string, std::vector<std::string>> rungs;
  std::vector<std::string> features;  // those that the ladder names, as far as they can be had here
  bool known() const { return !features.empty(); }
  bool operator==(const HostCpu&) const = default;
};

struct HostRecord {
  HostId host;
  std::string version;            // of holdfastd
  std::string api_address;        // "10.77.0.1:7443", reached by the other hosts
  std::string heartbeat_address;  // "10.77.0.1:7444", UDP
  int cpus = 0;
  std::uint64_t memory_mib = 0;   // what VMs may use: the machine's less what is set aside
  std::string accelerator;        // "kvm" or "tcg"
  std::string accelerator_reason; // why not kvm
  std::string qemu_version;
  std::map<std::string, std::string> datastores;  // DatastoreId text -> mount path on this host, if usable now
  std::vector<std::string> slot_datastores;       // ids of those that carry this host's heartbeat slot
  std::map<std::string, std::string> datastore_problems;  // DatastoreId text -> why it is not usable here now
  std::vector<std::string> slots_renewed;         // ids of those slots that its guard does renew now
  std::vector<std::string> networks;              // names of the networks whose bridge this host has
  int motion_mbit = 0;            // speed of the link that vMotions use; 0: not known
  HostCpu cpu;
  int level = 1;                  // kLevel of its daemon
  bool operator==(const HostRecord&) const = default;
};

struct SessionRecord {
  SessionId session;
  bool operator==(const SessionRecord&) const = default;
};

// The host shall be empty of VMs. Made and erased by the API; the rest is the leader's (core/motion/evacuation.hpp).
// While it is there, whatever gives the host a VM insists that it is not.
struct MaintenanceRecord {
  enum class State { entering, in };  // in: nothing owned by it, no motion from or to it
  HostId host;
  State state = State::entering;
  std::string message;  // what it waits for, a sentence; empty: for motions that are under way
  std::string requested_by;
  WallMs since = 0;
  std::string later = {};
  bool operator==(const MaintenanceRecord&) const = default;
};

struct LeaderRecord {
  HostId host;
  SessionId session;
  bool operator==(const LeaderRecord&) const = default;
};

struct DatastoreRecord {
  DatastoreId id;
  std::string name;
  bool shared = true;                        // several hosts mount it
  std::map<std::string, std::string> paths;  // host -> path; "*": every host not named
  bool operator==(const DatastoreRecord&) const = default;
};

struct NetworkRecord {
  std::string name;
  std::string bridge;  // Linux bridge on every host
  int vlan = 0;        // 0: untagged
  bool operator==(const NetworkRecord&) const = default;
};

enum class Desired { stopped, running };

struct VmRecord {
  VmId id;
  vm::VmSpec spec;
  std::uint64_t generation = 0;  // grows with each `vm edit`
  std::uint64_t hardware = 0;    // the generation whose edit last changed what the guest sees
  Desired desired = Desired::stopped;
  std::string pinned_host;       // `vm start --on`; empty: the leader chooses
  TaskId active_task;            // the command under way; empty: none. The lock against two commands at once
  WallMs created = 0;
  std::string later = {};
  bool operator==(const VmRecord&) const = default;
};

// safety: who may run the VM. Changed only by compare-and-swap.
//   released: nobody. `epoch` is the last one that ran.
//   assigned: `host` shall start it, and nobody else may; it has not begun.
//   claimed:  `host` runs it, or may; `session` was the host's store session when it last claimed.
struct OwnerRecord {
  enum class Phase { released, assigned, claimed };
  Phase phase = Phase::released;
  HostId host;
  Epoch epoch;
  SessionId session;
  // safety: the host's guard freezes it when contact is lost; only then may a dead host's VM be given to another. Fixed
  // when the VM starts, whatever its spec says later.
  bool guarded = false;
  std::string reason;  // why it was given: "start", "restart: host2 is dead (...)", ...
  // safety: the motion whose commit gave it to `host`, kept by that host's reclaims, empty after any other claim. Only
  // with it may a process that waits for its memory run under this record.
  TaskId motion;
  // What the guest was started with, and keeps until its next start, wherever it goes: QEMU's -cpu (empty: an earlier
  // version started it), and the generation of its spec.
  std::string cpu = {};
  std::uint64_t generation = 0;
  std::string later = {};
  bool operator==(const OwnerRecord&) const = default;
};

// How the stream of a vMotion is protected.
enum class Encryption { required, opportunistic, off };

// What copies a guest's memory in a vMotion. holdfast: the memory engine. qemu: QEMU's own migration. automatic: the
// first where it can read the guest's memory, the second where it cannot; in a MotionRecord it is decided.
enum class Engine { automatic, holdfast, qemu };

// What the user may say about one vMotion.
struct MotionLimits {
  Encryption encryption = Encryption::required;
  std::uint64_t bandwidth_mbit = 0;  // at most this much of the link; 0: no limit
  int max_stop_ms = 0;               // the guest stands still no longer than this at the end; 0: the default
  Engine engine = Engine::automatic;
  bool operator==(const MotionLimits&) const = default;
};

// A vMotion under way (ARCHITECTURE.md, "How a VM moves"). Changed only by compare-and-swap. It is cancelled, or given
// up, by erasing it: safety: the commit insists on this record's version, so nothing commits once it is erased.
//   preparing: `to` starts a QEMU that waits for memory.
//   ready:     it waits at `endpoint`; the source copies.
//   committed: the right to run has gone to `to`; kept until `to` has told its datastore.
struct MotionRecord {
  enum class Phase { preparing, ready, committed };
  TaskId id;  // the vm.migrate task
  VmId vm;
  HostId from, to;
  Epoch epoch;  // the source's; the destination's is the next one
  Phase phase = Phase::preparing;
  MotionLimits limits;
  vm::Relocation disks;  // that go along, with the motion's id as tag; no datastore: none, both hosts use the same
  // Of `ready`:
  std::string endpoint;  // "10.77.1.2:49152", where the destination listens
  std::string token;     // what the source shows there
  // safety: the destination's store session and its guard's generation, read before it said `ready`. The commit insists
  // on the one, the guard's admission on the other.
  SessionId session_to;
  std::uint64_t generation_to = 0;
  std::uint64_t room_bytes = 0;  // with disks: what is free for them there
  std::string later = {};
  bool operator==(const MotionRecord&) const = default;
};

// Disks on their way to another datastore or into another format (ARCHITECTURE.md, "How disks move"). Changed only by
// compare-and-swap. While it is there, nothing else moves the VM or its disks.
//   copying:   `host` makes the new images equal to the old ones, which are the truth.
//   committed: the VM's spec names the new images since the swap that wrote this; the old ones are to be deleted.
//   abandoned: it does not and never will; the new ones are to be deleted.
// A motion that takes disks along leaves one behind as well, committed or abandoned, for what is to be deleted.
// safety: a file's name holds the relocation's id (vm::Disk::tag), so none is ever used twice: whoever deletes late
// deletes nothing of a later relocation.
struct RelocationRecord {
  enum class Phase { copying, committed, abandoned };
  TaskId id;  // the vm.migrate task; the tag of all that is made
  VmId vm;
  HostId host;     // that copies
  bool live = false;  // its QEMU does; else nobody may run the VM meanwhile
  Epoch epoch;     // of the owner record all the while
  Phase phase = Phase::copying;
  vm::Relocation what;
  std::uint64_t bandwidth_mbit = 0;  // 0: no limit
  std::vector<vm::PlacedFile> old_files, new_files;  // what each side has alone
  std::string old_home, new_home;  // datastores of the VM's owner file; empty: it stays
  HostId cleaner;  // of a motion: the host that has the files, and deletes them; empty: whoever has the VM
  bool operator==(const RelocationRecord&) const = default;
};

// paused: a disk error stands in its way (VmStatus::message), QEMU holds the guest until it has passed.
enum class VmState { stopped, starting, running, paused, frozen, stopping, crashed, failed };

struct VmStatus {
  VmState state = VmState::stopped;
  HostId host;
  Epoch epoch;
  std::string message;   // why it is so, a sentence
  int attempts = 0;      // failed starts since the last success
  std::vector<std::string> failed_hosts;  // hosts where the last attempts failed
  WallMs since = 0;
  std::string accelerator;
  std::string memory_tracker;  // what a later vMotion or FT can use here, and why not better
  bool operator==(const VmStatus&) const = default;
};

// What a vMotion took, as each side measured its own. The guest's last stop is the sum of its parts, in this order.
struct MotionReport {
  HostId from, to;
  std::uint64_t rounds = 0;  // 0: there is no report
  std::uint64_t zero_pages = 0, delta_pages = 0, plain_pages = 0;
  std::uint64_t bytes_sent = 0, state_bytes = 0;
  int least_share_percent = 100;  // of its time that the guest was left, where it outran the link
  std::uint64_t took_ms = 0;
  std::uint64_t slowed_ms = 0;    // for scans and by the slow-down, before the last stop
  std::uint64_t stop_us = 0, halt_us = 0, scan_us = 0, save_us = 0, copy_us = 0, load_us = 0;
  std::uint64_t resume_us = 0;  // from "loaded" to running, at the destination; 0: its daemon was restarted
  std::uint64_t commit_us = 0;  // part of it
  std::string tracker;  // which, and why
  Engine engine = Engine::holdfast;  // that was used. qemu: it stops and saves within `copy`, and there is no tracker
  std::uint64_t disks = 0, disk_bytes = 0;  // that went along
  bool operator==(const MotionReport&) const = default;
};

// What the move of a VM's disks took.
struct RelocationReport {
  std::uint64_t disks = 0;  // 0: there is no report
  std::uint64_t bytes = 0;  // copied, some perhaps twice
  std::uint64_t took_ms = 0;
  std::uint64_t held_us = 0;  // that the guest's disk requests waited at the end; 0: it was off, or it is not known
  bool operator==(const RelocationReport&) const = default;
};

enum class TaskKind { vm_create, vm_start, vm_stop, vm_kill, vm_reset, vm_delete, vm_import, vm_resize, vm_migrate };
enum class TaskState { queued, running, succeeded, failed };

struct TaskRecord {
  TaskId id;
  TaskKind kind = TaskKind::vm_start;
  VmId vm;
  std::string vm_name;
  TaskState state = TaskState::queued;
  HostId host;        // that carries it out; empty: whoever owns the VM
  int progress = 0;   // percent
  std::string error_code;  // CodeInfo::name
  std::string message;
  WallMs created = 0, finished = 0;
  std::string disk;              // vm_resize; vm_migrate: this one only
  std::uint64_t size_bytes = 0;  // vm_resize: the disk's new size
  int timeout_seconds = 0;  // vm_stop: graceful for this long, then forced; 0: the spec's
  HostId to;                // vm_migrate: empty: the leader chooses
  MotionLimits limits;      // vm_migrate
  MotionReport report;      // vm_migrate: comes soon after it has succeeded
  std::string datastore;    // vm_migrate: the disks go there; empty: they stay
  std::string disk_format;  // vm_migrate with a datastore: "raw", "qcow2"; empty: each keeps its own
  RelocationReport relocation;  // vm_migrate with a datastore
  std::string requested_by;
  std::string later = {};
  bool operator==(const TaskRecord&) const = default;
};

struct EventRecord {
  std::string id;        // <16 hex digits of wall ms>-<host>-<counter>
  WallMs time = 0;
  std::string severity;  // "info", "warning", "error"
  std::string kind;      // stable, dotted: "ha.host.dead", "vm.restarted"
  HostId host;           // that reports
  VmId vm;
  std::string subject;   // host or VM name it is about
  std::string text;      // a sentence
  bool operator==(const EventRecord&) const = default;
};

// Any record, for code that handles changes of all keys. monostate: erased, or a key this version does not know.
using Any = std::variant<std::monostate, ClusterRecord, HostRecord, SessionRecord, LeaderRecord, DatastoreRecord,
                         NetworkRecord, VmRecord, OwnerRecord, VmStatus, TaskRecord, EventRecord, MotionRecord,
                         MaintenanceRecord, RelocationRecord>;
// The record kind follows from the key. monostate for keys that hold none (vm-names/, secrets/); Code::corrupt as
// decode.
Result<Any> decode_at(const std::string& key, const std::string& text);
// REQUIRES: not monostate
std::string encode(const Any&);

// encode gives the JSON text of the store; decode refuses what is not that record (Code::corrupt).
std::string encode(const ClusterRecord&);
std::string encode(const HostRecord&);
std::string encode(const SessionRecord&);
std::string encode(const MaintenanceRecord&);
std::string encode(const LeaderRecord&);
std::string encode(const DatastoreRecord&);
std::string encode(const NetworkRecord&);
std::string encode(const VmRecord&);
std::string encode(const OwnerRecord&);
std::string encode(const MotionRecord&);
std::string encode(const RelocationRecord&);
std::string encode(const VmStatus&);
std::string encode(const TaskRecord&);
std::string encode(const EventRecord&);
template <class Record>
Result<Record> decode(const std::string& text);

std::string_view name_of(VmState);
std::string_view name_of(TaskKind);
std::string_view name_of(TaskState);
std::string_view name_of(Desired);
std::string_view name_of(OwnerRecord::Phase);
std::string_view name_of(MotionRecord::Phase);
std::string_view name_of(RelocationRecord::Phase);
std::string_view name_of(Encryption);
std::string_view name_of(Engine);
std::string_view name_of(MaintenanceRecord::State);

}  // namespace hf::record
