#pragma once
// InitSystem: how the services of this host are started. On a machine with systemd the installed units are used
// (packaging/), and the only unit written here is that of an own etcd member; elsewhere the commands are printed, for
// whoever keeps processes running there. One thread.
#include <chrono>
#include <memory>
#include <string>

#include "base/result.hpp"
#include "sys/etcd/member.hpp"

namespace hf::cli {

class InitSystem {
 public:
  virtual ~InitSystem() = default;
  // Before anything is changed: Code::not_found names what start_daemons needs and this machine lacks.
  virtual Status check_installed() = 0;
  // Enables and starts this host's member of the store; returns before it answers.
  virtual Status start_member(const etcd::MemberConfig& member) = 0;
  // How long a member may take to answer: longer where a person has to start it.
  virtual std::chrono::seconds member_patience() const = 0;
  // Enables and starts holdfast-guard and holdfastd with this config.json.
  virtual Status start_daemons(const std::string& config) = 0;
  // Stops holdfastd; VMs run on. False: it is for the user to do.
  virtual Result<bool> stop_daemon() = 0;
  // Both read config.json again; VMs run on. The guard first: it must know before the daemon acts on it.
  virtual Status restart_daemons(const std::string& config) = 0;
};

inline constexpr const char* kInstalledConfig = "/etc/holdfast/config.json";  // the one the units name

std::unique_ptr<InitSystem> systemd();
// Prints what the user has to run. `program_dir`: where this program is; its neighbours are named by path.
std::unique_ptr<InitSystem> no_init_system(const std::string& program_dir);
// systemd where it runs and `config` is the one its units name.
std::unique_ptr<InitSystem> detect_init_system(const std::string& config, const std::string& program_dir);

// The folder of the running program.
std::string own_folder();

}  // namespace hf::cli
