#pragma once
// The commands of `holdfast lab`: words in, the lab's functions called, sentences out. Mount it on the
// program's CLI11 app; the lab starts its own helpers as `<this program> lab init` and `<this program> lab
// relay`. A failed command sets `exit_status` (base/result.hpp's table) and has said why on standard error.
namespace CLI {
class App;
}

namespace hf::lab {

// Adds the subcommand `lab` to `app`. `exit_status` must outlive the parsing.
void add_lab_commands(CLI::App& app, int& exit_status);

}  // namespace hf::lab
