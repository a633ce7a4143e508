#pragma once
// run_seed: one random run, from its seed to its verdict. The KeptBugs by name.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sim/checker.hpp"
#include "sim/params.hpp"

namespace hf::sim {

struct RunResult {
  std::optional<Violation> violation;
  std::uint64_t hash = 0;  // of everything that happened
  std::uint64_t events = 0;
  Time lasted{};  // virtual
  Checker::Counts counts;
  std::vector<std::string> lines;  // if traced
};

RunResult run_seed(std::uint64_t seed, ha::KeptBug bug, bool tracing);

// Every KeptBug with its name, without `none`.
const std::vector<std::pair<std::string_view, ha::KeptBug>>& kept_bugs();

}  // namespace hf::sim
