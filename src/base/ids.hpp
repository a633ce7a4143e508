#pragma once
// Strong ids and counters. A HostId never goes where a VmId is wanted. All are plain values, ordered and hashable.
#include <compare>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>

namespace hf {

template <class Tag>
struct TextId {
  std::string text;
  TextId() = default;
  explicit TextId(std::string value) : text(std::move(value)) {}
  bool empty() const { return text.empty(); }
  auto operator<=>(const TextId&) const = default;
};

using HostId = TextId<struct HostTag>;            // the host's name in the cluster: "host1"
using VmId = TextId<struct VmTag>;                // made at creation, never reused: "vm-1f3a9c0e"
using DatastoreId = TextId<struct DatastoreTag>;  // made at `datastore add`, stands on the datastore: "ds-77aa01bc"
using SessionId = TextId<struct SessionTag>;      // one unbroken life of a host's store lease
using TaskId = TextId<struct TaskTag>;

// The generation of a VM's right to run: grows with every hand-over, never falls. 0: never started.
struct Epoch {
  std::uint64_t number = 0;
  Epoch next() const { return Epoch{number + 1}; }
  auto operator<=>(const Epoch&) const = default;
};

}  // namespace hf

template <class Tag>
struct std::hash<hf::TextId<Tag>> {
  std::size_t operator()(const hf::TextId<Tag>& id) const noexcept { return std::hash<std::string>{}(id.text); }
};
