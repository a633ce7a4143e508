#pragma once
// What the two readers of a spec (TOML, JSON) share: the mistakes, the reader of a parsed tree, and the
// checks of a whole spec. Internal to core/vm; users call parse_spec, spec_from_json and validate.
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "core/vm/spec.hpp"

namespace hf::vm {

// One mistake. `path` is where it is, by JSON names: "disks[1].size_bytes"; "" is the whole spec. It may name
// a key that is not there. `text` is a sentence that says what is wrong and what is allowed.
struct Problem {
  std::string path;
  std::string text;
};

inline constexpr std::size_t kProblemsShown = 20;

// The two forms differ in the two sizes only: `memory` and `size` with units in TOML, `memory_mib` and
// `size_bytes` in JSON.
enum class Dialect { toml, json };

struct SpecReading {
  VmSpec spec;
  std::vector<Problem> problems;
};
// Reads a tree of tables, arrays and scalars, and checks the result. The spec is usable only if there are no
// problems.
SpecReading read_spec(const nlohmann::json& tree, Dialect dialect);

// The checks of a whole spec, in the spec's order.
std::vector<Problem> check_spec(const VmSpec& spec);

// The lines joined, at most kProblemsShown of them, and how many more there are.
std::string joined(const std::vector<std::string>& lines);
// "path: text" for each.
std::string described(const std::vector<Problem>& problems);

}  // namespace hf::vm
