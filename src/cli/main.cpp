// The program `holdfast`. `lab` is mounted here when it is built in.
#include "cli/app.hpp"

int main(int argc, char** argv) { return hf::cli::run(std::vector<std::string>(argv + 1, argv + argc)); }
