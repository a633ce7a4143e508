#pragma once
// Records and views as the JSON text of the API: the store's record without its "format", views with what
// they add. doc/openapi.json describes them and is tested against them. Pure.
#include <string>

#include "api/handler.hpp"
#include "api/inventory.hpp"

namespace hf::api {

std::string to_json(const record::DatastoreRecord& datastore);
std::string to_json(const record::NetworkRecord& network);
std::string to_json(const record::TaskRecord& task);
std::string to_json(const record::EventRecord& event);
std::string to_json(const record::VmRecord& vm);
std::string to_json(const VmView& view);       // VmRecord + name, owner, status, motion (null if there is none)
std::string to_json(const HostView& view);     // HostRecord + connected, leader, vms, memory_used_mib
std::string to_json(const ClusterView& view);  // ClusterRecord + leader and counts
std::string to_json(const EvcView& view);
std::string to_json(const motion::Answer& answer);
std::string to_json(const LocalStatus& status);
std::string to_json(const std::vector<TimingRow>& rows);

// {"<name>": [ ... ]}
template <class Item>
std::string list_json(const std::string& name, const std::vector<Item>& items) {
  std::string out = "{\"" + name + "\":[";
  for (const auto& item : items) {
    if (out.back() != '[') out += ',';
    out += to_json(item);
  }
  return out + "]}";
}

}  // namespace hf::api
