#pragma once
// The `holdfast` program: builds the command tree, runs one command, gives its exit status (base/result.hpp's
// table). One thread, but for `vm console`, whose output has one of its own.
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace hf::cli {

// What other parts mount into the command tree (`lab ...`). A mounted command sets `status` when it has run.
struct Mount {
  void (*add)(CLI::App& app, int& status);
};

// argv without argv[0].
int run(const std::vector<std::string>& arguments, const std::vector<Mount>& mounts = {});

}  // namespace hf::cli
