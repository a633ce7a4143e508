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

}  // namespace hf::cli
