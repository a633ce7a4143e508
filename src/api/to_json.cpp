#include "api/to_json.hpp"

#include <nlohmann/json.hpp>

namespace hf::api {
namespace {
using nlohmann::json;

// What a record holds, as the store writes it, less the format number.
template <class Record>
json plain(const Record& record) {
  json j = json::parse(record::encode(record));
  j.erase("format");
  return j;
}

std::string text(const json& j) { return j.dump(-1, ' ', false, json::error_handler_t::replace); }
}  // namespace

std::string to_json(const record::DatastoreRecord& datastore) { return text(plain(datastore)); }
std::string to_json(const record::NetworkRecord& network) { return text(plain(network)); }
std::string to_json(const record::TaskRecord& task) { return text(plain(task)); }
std::string to_json(const record::EventRecord& event) { return text(plain(event)); }

std::string to_json(const record::VmRecord& vm) { return to_json(VmView{vm, {}, {}, {}}); }

std::string to_json(const VmView& view) {
  json j = plain(view.vm);
  j["name"] = view.vm.spec.name;
  j["owner"] = view.owner ? plain(*view.owner) : json();
  j["status"] = view.status ? plain(*view.status) : json();
  j["motion"] = json();
  if (view.motion) {
    j["motion"] = {{"task", view.motion->task.text},
                   {"to", view.motion->to.text},
                   {"phase", record::name_of(view.motion->phase)},
                   {"progress", view.motion->progress}};
  }
  return text(j);
}

std::string to_json(const HostView& view) {
  json j = plain(view.host);
  j["connected"] = view.connected;
  j["leader"] = view.leader;
  j["vms"] = view.vms;
  j["memory_used_mib"] = view.memory_used_mib;
  j["maintenance"] = view.maintenance ? plain(*view.maintenance) : json();
  return text(j);
}

std::string to_json(const ClusterView& view) {
  json j = plain(view.cluster);
  j["leader"] = view.leader;
  j["hosts"] = view.hosts;
  j["hosts_connected"] = view.hosts_connected;
  j["vms"] = view.vms;
  j["vms_running"] = view.vms_running;
  return text(j);
}

std::string to_json(const EvcView& view) {
  json hosts = json::array();
  for (const auto& host : view.told.hosts) {
    hosts.push_back({{"host", host.host.text},
                     {"meets", host.why_not.empty()},
                     {"reason", host.why_not},
                     {"hidden", host.hidden},
                     {"best", host.best}});
  }
  return text({{"baseline", view.told.model},
               {"title", view.told.title},
               {"automatic", view.told.automatic},
               {"best", view.told.best},
               {"next", view.told.next},
               {"forced_by", view.told.forced_by},
               {"hosts", hosts},
               {"keep", view.keep}});
}

std::string to_json(const motion::Answer& answer) {
  return text({{"to", answer.to.text}, {"reasons", answer.reasons}, {"engine", record::name_of(answer.engine)}});
}

std::string to_json(const LocalStatus& status) {
  return text({{"version", status.version},
               {"guard", status.guard},
               {"guard_message", status.guard_message},
               {"frozen_vms", status.frozen_vms},
               {"store_contact", status.store_contact}});
}

std::string to_json(const std::vector<TimingRow>& rows) {
  json list = json::array();
  for (const auto& row : rows) {
    list.push_back({{"name", row.name}, {"milliseconds", row.milliseconds}, {"meaning", row.meaning}});
  }
  return text({{"timing", list}});
}

}  // namespace hf::api
