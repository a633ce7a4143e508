#pragma once
// InitSystem: how the services of this host are installed and started. systemd where it runs; else the
// commands are printed.
#include <memory>
#include <string>

#include "base/result.hpp"

namespace hf::cli {

class InitSystem {
 public:
  virtual ~InitSystem() = default;
  // Installs a unit, enables and starts it.
  virtual Status start(const std::string& unit, const std::string& text) = 0;
};

std::unique_ptr<InitSystem> systemd();
// Prints what the user has to run.
std::unique_ptr<InitSystem> no_init_system();
std::unique_ptr<InitSystem> detect_init_system();

// The units' texts; `config` is the path of config.json.
std::string guard_unit(const std::string& config);
std::string daemon_unit(const std::string& config);
struct EtcdMember {
  std::string host, address, state_dir, pki_dir;
  std::string initial_cluster;  // "host1=https://10.0.0.1:2380,..."
  bool joins = false;           // an existing cluster
};
std::string etcd_command(const EtcdMember& member);
std::string etcd_unit(const EtcdMember& member);

}  // namespace hf::cli
