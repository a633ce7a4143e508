// hf-lab: the lab's commands alone, for the lab's own tests. Users have `holdfast lab`.
#include <CLI/CLI.hpp>

#include "lab/lab_cli.hpp"

int main(int argc, char** argv) {
  CLI::App app("The lab of Holdfast");
  app.require_subcommand(1);
  int exit_status = 0;
  hf::lab::add_lab_commands(app, exit_status);
  CLI11_PARSE(app, argc, argv);
  return exit_status;
}
