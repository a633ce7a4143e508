#include "core/record/records.hpp"

#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>
#include <vector>

#include "base/ensure.hpp"

namespace nlohmann {
template <class Tag>
struct adl_serializer<hf::TextId<Tag>> {
  static void to_json(json& j, const hf::TextId<Tag>& id) { j = id.text; }
  static void from_json(const json& j, hf::TextId<Tag>& id) { id.text = j.get<std::string>(); }
};
template <>
struct adl_serializer<hf::Epoch> {
  static void to_json(json& j, const hf::Epoch& epoch) { j = epoch.number; }
  static void from_json(const json& j, hf::Epoch& epoch) { epoch.number = j.get<std::uint64_t>(); }
};
template <>
struct adl_serializer<hf::vm::VmSpec> {
  static void to_json(json& j, const hf::vm::VmSpec& spec) { j = json::parse(hf::vm::to_json(spec)); }
  static void from_json(const json& j, hf::vm::VmSpec& spec) {
    auto parsed = hf::vm::spec_from_json(j.dump());
    if (!parsed.ok()) throw json::other_error::create(501, parsed.error().what, &j);
    spec = std::move(*parsed);
  }
};
template <>
struct adl_serializer<hf::vm::PlacedFile> {
  static void to_json(json& j, const hf::vm::PlacedFile& file) {
    j = json{{"datastore", file.datastore}, {"name", file.name}};
  }
  static void from_json(const json& j, hf::vm::PlacedFile& file) {
    file.datastore = j.at("datastore").get<std::string>();
    file.name = j.at("name").get<std::string>();
  }
};
template <>
struct adl_serializer<hf::vm::Relocation> {
  static void to_json(json& j, const hf::vm::Relocation& what) {
    j = json{{"datastore", what.datastore}, {"format", what.format}, {"disk", what.disk}, {"tag", what.tag}};
  }
  static void from_json(const json& j, hf::vm::Relocation& what) {
    what.datastore = j.at("datastore").get<std::string>();
    what.format = j.at("format").get<std::string>();
    what.disk = j.at("disk").get<std::string>();
    what.tag = j.at("tag").get<std::string>();
  }
};
}  // namespace nlohmann

namespace hf::record {

using nlohmann::json;

namespace {
using Phase = OwnerRecord::Phase;
using Motion = MotionRecord::Phase;
using Relocating = RelocationRecord::Phase;
using Maintenance = MaintenanceRecord::State;

// The one table of each enum, for JSON and for people, and the field that holds it.
template <class Enum>
struct Words {
  std::string_view field;
  std::vector<std::pair<Enum, std::string_view>> names;
};

const Words<Desired> kDesired = {"desired", {{Desired::stopped, "stopped"}, {Desired::running, "running"}}};
const Words<VmState> kVmStates = {"state",
                                  {{VmState::stopped, "stopped"},
                                   {VmState::starting, "starting"},
                                   {VmState::running, "running"},
                                   {VmState::paused, "paused"},
                                   {VmState::frozen, "frozen"},
                                   {VmState::stopping, "stopping"},
                                   {VmState::crashed, "crashed"},
                                   {VmState::failed, "failed"}}};
const Words<TaskKind> kTaskKinds = {"kind",
                                    {{TaskKind::vm_create, "vm.create"},
                                     {TaskKind::vm_start, "vm.start"},
                                     {TaskKind::vm_stop, "vm.stop"},
                                     {TaskKind::vm_kill, "vm.kill"},
                                     {TaskKind::vm_reset, "vm.reset"},
                                     {TaskKind::vm_delete, "vm.delete"},
                                     {TaskKind::vm_import, "vm.import"},
                                     {TaskKind::vm_resize, "vm.resize"},
                                     {TaskKind::vm_migrate, "vm.migrate"}}};
const Words<TaskState> kTaskStates = {"state",
                                      {{TaskState::queued, "queued"},
                                       {TaskState::running, "running"},
                                       {TaskState::succeeded, "succeeded"},
                                       {TaskState::failed, "failed"}}};
const Words<Phase> kPhases = {
    "phase", {{Phase::released, "released"}, {Phase::assigned, "assigned"}, {Phase::claimed, "claimed"}}};
const Words<Motion> kMotions = {
    "phase", {{Motion::preparing, "preparing"}, {Motion::ready, "ready"}, {Motion::committed, "committed"}}};
const Words<Relocating> kRelocations = {
    "phase",
    {{Relocating::copying, "copying"}, {Relocating::committed, "committed"}, {Relocating::abandoned, "abandoned"}}};
const Words<Encryption> kEncryptions = {"encryption",
                                        {{Encryption::required, "required"},
                                         {Encryption::opportunistic, "opportunistic"},
                                         {Encryption::off, "off"}}};
const Words<Engine> kEngines = {
    "engine", {{Engine::automatic, "auto"}, {Engine::holdfast, "holdfast"}, {Engine::qemu, "qemu"}}};
const Words<Maintenance> kMaintenances = {
    "state", {{Maintenance::entering, "entering"}, {Maintenance::in, "in"}}};

template <class Enum>
std::string_view text_of(const Words<Enum>& words, Enum value) {
  for (const auto& [key, text] : words.names) {
    if (key == value) return text;
  }
  return "?";
}

// safety: a word this version does not know is nobody's default: an unknown owner phase must not read as "nobody runs
// it", nor an unknown wish as "stop it".
template <class Enum>
Enum value_of(const Words<Enum>& words, const json& j) {
  for (const auto& [key, text] : words.names) {
    if (j == text) return key;
  }
  throw json::other_error::create(
      501, "\"" + std::string(words.field) + "\" holds " + j.dump() + ", which this version does not know", nullptr);
}
}  // namespace

std::string_view name_of(VmState state) { return text_of(kVmStates, state); }
std::string_view name_of(TaskKind kind) { return text_of(kTaskKinds, kind); }
std::string_view name_of(TaskState state) { return text_of(kTaskStates, state); }
std::string_view name_of(Desired desired) { return text_of(kDesired, desired); }
std::string_view name_of(Phase phase) { return text_of(kPhases, phase); }
std::string_view name_of(Motion phase) { return text_of(kMotions, phase); }
std::string_view name_of(Relocating phase) { return text_of(kRelocations, phase); }
std::string_view name_of(Encryption encryption) { return text_of(kEncryptions, encryption); }
std::string_view name_of(Engine engine) { return text_of(kEngines, engine); }
std::string_view name_of(Maintenance state) { return text_of(kMaintenances, state); }

void to_json(json& j, VmState state) { j = name_of(state); }
void to_json(json& j, TaskKind kind) { j = name_of(kind); }
void to_json(json& j, TaskState state) { j = name_of(state); }
void to_json(json& j, Desired desired) { j = name_of(desired); }
void to_json(json& j, Encryption encryption) { j = name_of(encryption); }
void to_json(json& j, Engine engine) { j = name_of(engine); }
void to_json(json& j, Motion phase) { j = name_of(phase); }
void to_json(json& j, Relocating phase) { j = name_of(phase); }
void to_json(json& j, Maintenance state) { j = name_of(state); }
void from_json(const json& j, VmState& state) { state = value_of(kVmStates, j); }
void from_json(const json& j, TaskKind& kind) { kind = value_of(kTaskKinds, j); }
void from_json(const json& j, TaskState& state) { state = value_of(kTaskStates, j); }
void from_json(const json& j, Desired& desired) { desired = value_of(kDesired, j); }
void from_json(const json& j, Encryption& encryption) { encryption = value_of(kEncryptions, j); }
void from_json(const json& j, Engine& engine) { engine = value_of(kEngines, j); }
void from_json(const json& j, Motion& phase) { phase = value_of(kMotions, j); }
void from_json(const json& j, Relocating& phase) { phase = value_of(kRelocations, j); }
void from_json(const json& j, Maintenance& state) { state = value_of(kMaintenances, j); }

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(ClusterRecord, id, name, created, heartbeat_ms, level, evc,
                                                evc_auto)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(HostCpu, vendor, name, runs, rungs, features)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(HostRecord, host, version, api_address, heartbeat_address, cpus,
                                                memory_mib, accelerator, accelerator_reason, qemu_version, datastores,
                                                slot_datastores, datastore_problems, slots_renewed, networks,
                                                motion_mbit, cpu, level)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(SessionRecord, session)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(LeaderRecord, host, session)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(MaintenanceRecord, host, state, message, requested_by, since)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(DatastoreRecord, id, name, shared, paths)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(NetworkRecord, name, bridge, vlan)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(VmRecord, id, spec, generation, hardware, desired, pinned_host,
                                                active_task, created)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(VmStatus, state, host, epoch, message, attempts, failed_hosts, since,
                                                accelerator, memory_tracker)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(MotionLimits, engine, encryption, bandwidth_mbit, max_stop_ms)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(MotionReport, from, to, rounds, zero_pages, delta_pages, plain_pages,
                                                bytes_sent, state_bytes, least_share_percent, took_ms, slowed_ms,
                                                stop_us, halt_us, scan_us, save_us, copy_us, load_us, resume_us,
                                                commit_us, tracker, engine, disks, disk_bytes)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(RelocationReport, disks, bytes, took_ms, held_us)
// safety: no defaults here, for the same reason.
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(RelocationRecord, id, vm, host, live, epoch, phase, what, bandwidth_mbit, old_files,
                                   new_files, old_home, new_home, cleaner)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(TaskRecord, id, kind, vm, vm_name, state, host, progress,
                                                error_code, message, created, finished, disk, size_bytes,
                                                timeout_seconds, to, limits, report, datastore, disk_format,
                                                relocation, requested_by)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(EventRecord, id, time, severity, kind, host, vm, subject, text)

void to_json(json& j, const MotionRecord& motion) {
  j = json{{"id", motion.id},
           {"vm", motion.vm},
           {"from", motion.from},
           {"to", motion.to},
           {"epoch", motion.epoch},
           {"phase", motion.phase},
           {"limits", motion.limits},
           {"endpoint", motion.endpoint},
           {"token", motion.token},
           {"session_to", motion.session_to},
           {"generation_to", motion.generation_to},
           {"disks", motion.disks},
           {"room_bytes", motion.room_bytes}};
}
void from_json(const json& j, MotionRecord& motion) {
  // safety: no defaults here; a record that lacks a field lets nothing commit.
  j.at("id").get_to(motion.id);
  j.at("vm").get_to(motion.vm);
  j.at("from").get_to(motion.from);
  j.at("to").get_to(motion.to);
  j.at("epoch").get_to(motion.epoch);
  j.at("phase").get_to(motion.phase);
  j.at("limits").get_to(motion.limits);
  j.at("endpoint").get_to(motion.endpoint);
  j.at("token").get_to(motion.token);
  j.at("session_to").get_to(motion.session_to);
  j.at("generation_to").get_to(motion.generation_to);
  if (!j.contains("disks")) return;  // level 1
  j.at("disks").get_to(motion.disks);
  j.at("room_bytes").get_to(motion.room_bytes);
}

void to_json(json& j, const OwnerRecord& owner) {
  j = json{{"phase", name_of(owner.phase)},
           {"host", owner.host},
           {"epoch", owner.epoch},
           {"session", owner.session},
           {"guarded", owner.guarded},
           {"reason", owner.reason},
           {"motion", owner.motion},
           {"cpu", owner.cpu},
           {"generation", owner.generation}};
}
void from_json(const json& j, OwnerRecord& owner) {
  // safety: no defaults here; a record that lacks a field gives nobody a right.
  owner.phase = value_of(kPhases, j.at("phase"));
  owner.host = j.at("host").get<HostId>();
  owner.epoch = j.at("epoch").get<Epoch>();
  owner.session = j.at("session").get<SessionId>();
  owner.guarded = j.at("guarded").get<bool>();
  owner.reason = j.value("reason", "");
  owner.motion = TaskId(j.value("motion", ""));
  owner.cpu = j.value("cpu", "");
  owner.generation = j.value("generation", std::uint64_t{0});
}

namespace {
// What this version does not know of a record that it writes again: whoever wrote it has a later one.
template <class Record>
concept KeepsLater = requires(Record record) { record.later; };

template <class Record>
std::string members_unknown(const json& j) {
  static const json kKnown = Record{};
  json unknown = json::object();
  for (const auto& [name, value] : j.items()) {
    if (name != "format" && !kKnown.contains(name)) unknown[name] = value;
  }
  return unknown.empty() ? "" : unknown.dump();
}

template <class Record>
std::string encode_any(const Record& record) {
  json j = record;
  if constexpr (KeepsLater<Record>) {
    if (!record.later.empty()) j.update(json::parse(record.later));
  }
  j["format"] = 1;
  return j.dump(-1, ' ', false, json::error_handler_t::replace);
}
}  // namespace

std::string encode(const ClusterRecord& r) { return encode_any(r); }
std::string encode(const HostRecord& r) { return encode_any(r); }
std::string encode(const SessionRecord& r) { return encode_any(r); }
std::string encode(const MaintenanceRecord& r) { return encode_any(r); }
std::string encode(const LeaderRecord& r) { return encode_any(r); }
std::string encode(const DatastoreRecord& r) { return encode_any(r); }
std::string encode(const NetworkRecord& r) { return encode_any(r); }
std::string encode(const VmRecord& r) { return encode_any(r); }
std::string encode(const OwnerRecord& r) { return encode_any(r); }
std::string encode(const MotionRecord& r) { return encode_any(r); }
std::string encode(const RelocationRecord& r) { return encode_any(r); }
std::string encode(const VmStatus& r) { return encode_any(r); }
std::string encode(const TaskRecord& r) { return encode_any(r); }
std::string encode(const EventRecord& r) { return encode_any(r); }

template <class Record>
Result<Record> decode(const std::string& text) {
  try {
    json j = json::parse(text);
    if (!j.is_object() || j.value("format", 0) < 1) return Error{Code::corrupt, "The record has no format number."};
    Record record = j.get<Record>();
    if constexpr (KeepsLater<Record>) record.later = members_unknown<Record>(j);
    return record;
  } catch (const json::exception& problem) {
    return Error{Code::corrupt, std::string("The record cannot be read: ") + problem.what() + "."};
  }
}

template Result<ClusterRecord> decode(const std::string&);
template Result<HostRecord> decode(const std::string&);
template Result<SessionRecord> decode(const std::string&);
template Result<MaintenanceRecord> decode(const std::string&);
template Result<LeaderRecord> decode(const std::string&);
template Result<DatastoreRecord> decode(const std::string&);
template Result<NetworkRecord> decode(const std::string&);
template Result<VmRecord> decode(const std::string&);
template Result<OwnerRecord> decode(const std::string&);
template Result<MotionRecord> decode(const std::string&);
template Result<RelocationRecord> decode(const std::string&);
template Result<VmStatus> decode(const std::string&);
template Result<TaskRecord> decode(const std::string&);
template Result<EventRecord> decode(const std::string&);

namespace {
template <class Record>
Result<Any> decode_as(const std::string& text) {
  TRY_ASSIGN(Record record, decode<Record>(text));
  return Any(std::move(record));
}
}  // namespace

Result<Any> decode_at(const std::string& at, const std::string& text) {
  using Decoder = Result<Any> (*)(const std::string&);
  static const std::vector<std::pair<std::string, Decoder>> kDecoders = {
      {key::kOwners, decode_as<OwnerRecord>},       {key::kStatus, decode_as<VmStatus>},
      {key::kMotions, decode_as<MotionRecord>},     {key::kRelocations, decode_as<RelocationRecord>},
      {key::kVms, decode_as<VmRecord>},             {key::kSessions, decode_as<SessionRecord>},
      {key::kIncarnations, decode_as<SessionRecord>}, {key::kHosts, decode_as<HostRecord>},
      {key::kTasks, decode_as<TaskRecord>},         {key::kEvents, decode_as<EventRecord>},
      {key::kDatastores, decode_as<DatastoreRecord>}, {key::kNetworks, decode_as<NetworkRecord>},
      {key::kMaintenance, decode_as<MaintenanceRecord>},
      {key::kLeader, decode_as<LeaderRecord>},      {key::kCluster, decode_as<ClusterRecord>}};
  for (const auto& [prefix, decoder] : kDecoders) {
    if (at.compare(0, prefix.size(), prefix) != 0) continue;
    auto decoded = decoder(text);
    return decoded.ok() ? decoded : because(at, decoded.error());
  }
  return Any{};
}

std::string encode(const Any& any) {
  return std::visit(
      [](const auto& record) -> std::string {
        if constexpr (std::is_same_v<std::decay_t<decltype(record)>, std::monostate>) {
          ENSURE(false, "an erased record has no text");
          return {};
        } else {
          return encode_any(record);
        }
      },
      any);
}

}  // namespace hf::record
