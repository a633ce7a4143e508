// The program `holdfast`.
#include "cli/app.hpp"
#include "lab/lab_cli.hpp"

int main(int argc, char** argv) {
  return hf::cli::run(std::vector<std::string>(argv + 1, argv + argc), {{hf::lab::add_lab_commands}});
}
