#pragma once
// The words of a spec's choices, for its readers and writers. Internal to core/vm.
#include <array>
#include <string_view>
#include <utility>

#include "core/vm/spec.hpp"

namespace hf::vm {

template <class Enum, std::size_t N>
using Names = std::array<std::pair<Enum, std::string_view>, N>;

inline constexpr Names<Firmware, 2> kFirmwareNames = {{{Firmware::bios, "bios"}, {Firmware::uefi, "uefi"}}};
inline constexpr Names<DiskFormat, 2> kFormatNames = {
    {{DiskFormat::qcow2, "qcow2"}, {DiskFormat::raw, "raw"}}};
inline constexpr Names<NicModel, 2> kNicModelNames = {
    {{NicModel::virtio, "virtio"}, {NicModel::e1000, "e1000"}}};
inline constexpr Names<RestartPriority, 6> kPriorityNames = {{{RestartPriority::highest, "highest"},
                                                              {RestartPriority::high, "high"},
                                                              {RestartPriority::medium, "medium"},
                                                              {RestartPriority::low, "low"},
                                                              {RestartPriority::lowest, "lowest"},
                                                              {RestartPriority::disabled, "disabled"}}};

template <class Enum, std::size_t N>
constexpr std::string_view name_in(const Names<Enum, N>& names, Enum value) {
  for (const auto& [candidate, name] : names) {
    if (candidate == value) return name;
  }
  return "?";
}

}  // namespace hf::vm
