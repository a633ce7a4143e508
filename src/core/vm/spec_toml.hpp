#pragma once
// The spec file that people write (doc/vm-spec.md): TOML to VmSpec and back. Pure.
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "core/vm/spec.hpp"

namespace hf::vm {

// Code::invalid with every mistake, a line each, in the file's order: "web.toml:12:3: <what is wrong and what
// is allowed>". At most the first 20. A mistake of TOML's own syntax stands alone. source_name: what the
// messages call the file.
Result<VmSpec> parse_spec(std::string_view toml, std::string_view source_name);

// The spec as a file: what is at its default is left out. parse_spec gives the same spec back.
// REQUIRES: validate(spec)
std::string to_toml(const VmSpec& spec);

}  // namespace hf::vm
