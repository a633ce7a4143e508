#pragma once
// The commands, by group: each function adds its group to the tree. The callbacks keep a reference to the
// session.
#include <string>
#include <vector>

#include "cli/session.hpp"

namespace CLI {
class App;
}

namespace hf::cli {

void add_vm_commands(CLI::App& app, Session& session);
void add_inventory_commands(CLI::App& app, Session& session);  // host, datastore, network
void add_host_maintenance(CLI::App& host, Session& session);   // of `host`
void add_cluster_commands(CLI::App& app, Session& session);
void add_watch_commands(CLI::App& app, Session& session);  // event, task, ha
void add_other_commands(CLI::App& app, Session& session);  // completion, version, help

// "Examples:" for the end of a command's help.
std::string examples(const std::vector<std::string>& lines);
// The table of exit codes, for the program's help and doc/cli.md.
std::string exit_code_text();
// The completion script of a shell: bash, zsh or fish. From the tree itself.
Result<std::string> completion_script(const CLI::App& app, const std::string& shell);
// The terminal is the VM's until Ctrl-].
void run_console(Session& session, const std::string& vm);
// Opens $VISUAL, $EDITOR or vi on the text; gives what was saved.
Result<std::string> edit_text(const std::string& text, const std::string& name);

}  // namespace hf::cli
