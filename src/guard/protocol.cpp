#include "guard/protocol.hpp"

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>

namespace hf::guard {
using nlohmann::json;
using Op = Request::Op;
using State = ha::Guard::State;
using Kind = GuardEvent::Kind;

namespace {
constexpr std::array<std::pair<Op, std::string_view>, 8> kOps = {{{Op::renewed, "renewed"},
                                                                  {Op::slots, "slots"},
                                                                  {Op::admit, "admit"},
                                                                  {Op::thaw, "thaw"},
                                                                  {Op::drop, "drop"},
                                                                  {Op::freeze_all, "freeze_all"},
                                                                  {Op::status, "status"},
                                                                  {Op::subscribe, "subscribe"}}};
constexpr std::array<std::pair<State, std::string_view>, 3> kStates = {
    {{State::unguarded, "unguarded"}, {State::running, "running"}, {State::frozen, "frozen"}}};
constexpr std::array<std::pair<Kind, std::string_view>, 5> kKinds = {{{Kind::frozen, "frozen"},
                                                                      {Kind::thawed, "thawed"},
                                                                      {Kind::slot_lost, "slot_lost"},
                                                                      {Kind::slot_back, "slot_back"},
                                                                      {Kind::contact, "contact"}}};

template <class Table, class Enum>
std::string name_in(const Table& table, Enum value) {
  for (const auto& [entry, name] : table) {
    if (entry == value) return std::string(name);
  }
  return "?";
}
// safety: an unknown word is an error, never a default.
template <class Enum, std::size_t N>
Enum named(const std::array<std::pair<Enum, std::string_view>, N>& table, const std::string& word) {
  for (const auto& [entry, name] : table) {
    if (name == word) return entry;
  }
  throw json::other_error::create(501, "unknown word " + word, nullptr);
}

std::string dump(const json& j) { return j.dump(-1, ' ', false, json::error_handler_t::replace); }
std::int64_t to_ns(Instant instant) { return instant.time_since_epoch().count(); }
Instant instant_at(const json& j, const char* key) {
  return Instant(Duration(j.at(key).get<std::int64_t>()));
}
std::string text_at(const json& j, const char* key) { return j.at(key).get<std::string>(); }
std::uint64_t number_at(const json& j, const char* key) { return j.at(key).get<std::uint64_t>(); }

json to_j(const ha::Admission& a) {
  return {{"vm", a.vm.text},
          {"epoch", a.epoch.number},
          {"cgroup", a.cgroup},
          {"hold_page", a.hold_page},
          {"protected", a.is_protected}};
}
ha::Admission admission_of(const json& j) {
  return {VmId(text_at(j, "vm")), Epoch{number_at(j, "epoch")}, text_at(j, "cgroup"), text_at(j, "hold_page"),
          j.at("protected").get<bool>()};
}
json to_j(const std::vector<SlotTarget>& targets) {
  json list = json::array();
  for (const auto& slot : targets) list.push_back({{"datastore", slot.datastore.text}, {"mount", slot.mount}});
  return list;
}
std::vector<SlotTarget> targets_of(const json& list) {
  std::vector<SlotTarget> targets;
  for (const json& slot : list) targets.push_back({DatastoreId(text_at(slot, "datastore")), text_at(slot, "mount")});
  return targets;
}
json to_j(const VmReport& r) {
  return {{"vm", r.vm.text},
          {"epoch", r.epoch.number},
          {"state", name_in(kStates, r.state)},
          {"generation", r.generation},
          {"reason", r.reason}};
}
VmReport vm_of(const json& j) {
  return {VmId(text_at(j, "vm")), Epoch{number_at(j, "epoch")}, named(kStates, text_at(j, "state")),
          number_at(j, "generation"), text_at(j, "reason")};
}
json to_j(const SlotReport& r) {
  return {{"datastore", r.datastore.text},
          {"mount", r.mount},
          {"ok", r.ok},
          {"last_success_ns", to_ns(r.last_success)},
          {"latency_ns", r.latency.count()},
          {"failures", r.failures},
          {"error", r.error}};
}
SlotReport slot_of(const json& j) {
  return {DatastoreId(text_at(j, "datastore")),
          text_at(j, "mount"),
          j.at("ok").get<bool>(),
          instant_at(j, "last_success_ns"),
          Duration(j.at("latency_ns").get<std::int64_t>()),
          number_at(j, "failures"),
          text_at(j, "error")};
}

template <class Value, class Parse>
Result<Value> parsed(const std::string& text, Code code, const Parse& parse) {
  try {
    return parse(json::parse(text));
  } catch (const json::exception& problem) {
    return Error{code, fmt::format("The guard's message cannot be read: {}.", problem.what())};
  }
}
}  // namespace

std::string encode(const Request& r) {
  json j = {{"op", name_in(kOps, r.op)}};
  switch (r.op) {
    case Op::renewed:
      j.update({{"started_ns", to_ns(r.started)}, {"session", r.session.text}});
      break;
    case Op::slots:
      j["slots"] = to_j(r.slots);
      break;
    case Op::admit:
      j.update(to_j(r.admission));
      j["generation"] = r.generation;
      break;
    case Op::thaw:
      j.update({{"vm", r.vm.text}, {"epoch", r.epoch.number}, {"generation", r.generation}});
      break;
    case Op::drop:
      j.update({{"vm", r.vm.text}, {"epoch", r.epoch.number}});
      break;
    case Op::freeze_all:
      j["reason"] = r.reason;
      break;
    case Op::status:
    case Op::subscribe:
      break;
  }
  return dump(j);
}

Result<Request> decode_request(const std::string& packet) {
  return parsed<Request>(packet, Code::invalid, [](const json& j) {
    Request r;
    r.op = named(kOps, text_at(j, "op"));
    switch (r.op) {
      case Op::renewed:
        r.started = instant_at(j, "started_ns");
        r.session = SessionId(text_at(j, "session"));
        break;
      case Op::slots:
        r.slots = targets_of(j.at("slots"));
        break;
      case Op::admit:
        r.admission = admission_of(j);
        r.generation = number_at(j, "generation");
        break;
      case Op::thaw:
        r.vm = VmId(text_at(j, "vm"));
        r.epoch = Epoch{number_at(j, "epoch")};
        r.generation = number_at(j, "generation");
        break;
      case Op::drop:
        r.vm = VmId(text_at(j, "vm"));
        r.epoch = Epoch{number_at(j, "epoch")};
        break;
      case Op::freeze_all:
        r.reason = text_at(j, "reason");
        break;
      case Op::status:
      case Op::subscribe:
        break;
    }
    return r;
  });
}

std::string encode_reply(const Status& outcome, const std::optional<GuardStatus>& status) {
  if (!outcome.ok()) {
    return dump(
        {{"ok", false}, {"code", std::string(info(outcome.code()).name)}, {"what", outcome.error().what}});
  }
  json j = {{"ok", true}};
  if (status) {
    json vms = json::array(), slots = json::array();
    for (const auto& vm : status->vms) vms.push_back(to_j(vm));
    for (const auto& slot : status->slots) slots.push_back(to_j(slot));
    j["status"] = {{"now_ns", to_ns(status->now)},
                   {"deadline_ns", to_ns(status->deadline)},
                   {"contact_fresh", status->contact_fresh},
                   {"generation", status->generation},
                   {"vms", vms},
                   {"slots", slots}};
  }
  return dump(j);
}

Result<GuardStatus> decode_reply(const std::string& packet) {
  Error refused;
  auto status = parsed<GuardStatus>(packet, Code::failed, [&](const json& j) {
    GuardStatus s;
    if (!j.at("ok").get<bool>()) {
      refused = Error{code_named(text_at(j, "code")), text_at(j, "what")};
      return s;
    }
    if (!j.contains("status")) return s;
    const json& in = j.at("status");
    s.now = instant_at(in, "now_ns");
    s.deadline = instant_at(in, "deadline_ns");
    s.contact_fresh = in.at("contact_fresh").get<bool>();
    s.generation = number_at(in, "generation");
    for (const json& vm : in.at("vms")) s.vms.push_back(vm_of(vm));
    for (const json& slot : in.at("slots")) s.slots.push_back(slot_of(slot));
    return s;
  });
  if (status.ok() && !refused.what.empty()) return refused;
  return status;
}

std::string encode(const GuardEvent& event) {
  json j = {{"event", name_in(kKinds, event.kind)}};
  if (event.kind == Kind::contact) return dump(j);
  const bool about_vm = event.kind == Kind::frozen || event.kind == Kind::thawed;
  j.update(about_vm ? to_j(event.vm) : to_j(event.slot));
  return dump(j);
}

Result<GuardEvent> decode_event(const std::string& packet) {
  return parsed<GuardEvent>(packet, Code::failed, [](const json& j) {
    GuardEvent event;
    event.kind = named(kKinds, text_at(j, "event"));
    if (event.kind == Kind::frozen || event.kind == Kind::thawed) {
      event.vm = vm_of(j);
    } else if (event.kind != Kind::contact) {
      event.slot = slot_of(j);
    }
    return event;
  });
}

std::string encode_state(const GuardState& state) {
  json vms = json::array();
  for (const auto& admission : state.admissions) vms.push_back(to_j(admission));
  return dump({{"format", 1}, {"vms", vms}, {"slots", to_j(state.slots)}}) + "\n";
}

Result<GuardState> decode_state(const std::string& text) {
  return parsed<GuardState>(text, Code::corrupt, [](const json& j) {
    if (j.at("format").get<int>() != 1) throw json::other_error::create(501, "unknown format", nullptr);
    GuardState state;
    for (const json& vm : j.at("vms")) state.admissions.push_back(admission_of(vm));
    state.slots = targets_of(j.at("slots"));
    return state;
  });
}

}  // namespace hf::guard
