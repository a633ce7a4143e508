#pragma once
// What a host of the lab runs: the one table to change when a program's command line changes. Pure.
#include <string>
#include <utility>
#include <vector>

#include "base/result.hpp"
#include "lab/layout.hpp"

namespace hf::lab {

struct Service {
  std::string name;
  std::vector<std::string> argv;
  std::vector<std::pair<std::string, std::string>> environment;
  int nice = 0;
};

// `program_dir`: where holdfastd and holdfast-guard are; their commands have the full path.
std::vector<Service> services_of(const Layout& layout, const LabConfig& config, int index,
                                 const std::string& program_dir);

// <host>/etc/services.json, which the host's init reads.
std::string to_json(const std::vector<Service>& services);
Result<std::vector<Service>> services_from_json(const std::string& text);

}  // namespace hf::lab
