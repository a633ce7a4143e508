#pragma once
// What the move of a VM or of its disks took, for people: the report of its task as
// "name: value" lines, each within 80 columns. Pure.
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

namespace hf::cli {

// It comes a moment after the task has succeeded.
bool has_motion_report(const nlohmann::json& task);
// REQUIRES: has_motion_report(task)
std::vector<std::pair<std::string, std::string>> motion_report(const nlohmann::json& task);

}  // namespace hf::cli
