#pragma once
// Scenario: a folder with README (what it shows), cluster, commands and expect: the cluster's whole log,
// with virtual times. The words of `cluster` and `commands` are in doc/simulator.md.
#include <string>
#include <vector>

#include "base/result.hpp"

namespace hf::sim {

// Runs what the two texts say and returns the log. Code::invalid names the line that is wrong.
Result<std::vector<std::string>> run_scenario(const std::string& cluster, const std::string& commands);

}  // namespace hf::sim
