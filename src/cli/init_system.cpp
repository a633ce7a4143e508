#include "cli/init_system.hpp"

#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>

#include "sys/pki/files.hpp"

namespace hf::cli {
namespace {
class Systemd : public InitSystem {
 public:
  Status start(const std::string& unit, const std::string& text) override {
    TRY(pki::write_file("/etc/systemd/system/" + unit + ".service", text, 0644));
    const std::string command = "systemctl daemon-reload && systemctl enable --now " + unit + ".service";
    if (std::system(command.c_str()) != 0) {  // the unit's name is one of ours
      return Error{Code::failed,
                   "systemd could not start " + unit + ": `journalctl -u " + unit + "` says why."};
    }
    return {};
  }
};

class Printed : public InitSystem {
 public:
  Status start(const std::string& unit, const std::string& text) override {
    const std::string key = "ExecStart=";
    const auto at = text.find(key);
    fmt::print("Start {}: {}\n", unit, text.substr(at + key.size(), text.find('\n', at) - at - key.size()));
    return {};
  }
};
}  // namespace

std::unique_ptr<InitSystem> systemd() { return std::make_unique<Systemd>(); }
std::unique_ptr<InitSystem> no_init_system() { return std::make_unique<Printed>(); }
std::unique_ptr<InitSystem> detect_init_system() {
  std::error_code ignored;  // cannot be looked at: not there
  return std::filesystem::exists("/run/systemd/system", ignored) ? systemd() : no_init_system();
}

std::string guard_unit(const std::string& config) {
  return fmt::format(
      "[Unit]\nDescription=Holdfast "
      "guard\nAfter=network-online.target\n\n[Service]\nExecStart=/usr/bin/holdfast-guard "
      "--config "
      "{}\nRestart=always\nRestartSec=1\nDelegate=yes\nKillMode=process\nLimitMEMLOCK="
      "infinity\nOOMScoreAdjust=-1000\n\n"
      "[Install]\nWantedBy=multi-user.target\n",
      config);
}

std::string daemon_unit(const std::string& config) {
  return fmt::format(
      "[Unit]\nDescription=Holdfast daemon\nAfter=network-online.target "
      "holdfast-guard.service\nWants=holdfast-guard.service\n\n"
      "[Service]\nExecStart=/usr/bin/holdfastd --config {}\nRestart=always\nRestartSec=1\nDelegate=yes\n"
      "KillMode=process\n\n[Install]\nWantedBy=multi-user.target\n",
      config);
}

std::string etcd_command(const EtcdMember& m) {
  const std::string peer = fmt::format("https://{}:2380", m.address);
  const std::string tls = fmt::format(
      "--cert-file {0}/cert.pem --key-file {0}/key.pem --trusted-ca-file {0}/ca.pem --client-cert-auth "
      "--peer-cert-file {0}/cert.pem --peer-key-file {0}/key.pem --peer-trusted-ca-file {0}/ca.pem "
      "--peer-client-cert-auth",
      m.pki_dir);
  return fmt::format(
      "/usr/bin/etcd --name {} --data-dir {}/etcd --listen-client-urls "
      "https://{}:2379,https://127.0.0.1:2379 "
      "--advertise-client-urls https://{}:2379 --listen-peer-urls {} --initial-advertise-peer-urls {} "
      "--initial-cluster {} "
      "--initial-cluster-state {} {}",
      m.host, m.state_dir, m.address, m.address, peer, peer, m.initial_cluster, m.joins ? "existing" : "new",
      tls);
}

std::string etcd_unit(const EtcdMember& member) {
  return fmt::format(
      "[Unit]\nDescription=Store of the Holdfast cluster "
      "(etcd)\nAfter=network-online.target\n\n[Service]\nType=notify\n"
      "ExecStart={}\nRestart=always\nRestartSec=1\nLimitNOFILE=65536\n\n[Install]\nWantedBy=multi-user."
      "target\n",
      etcd_command(member));
}

}  // namespace hf::cli
