#include "cli/init_system.hpp"

#include <fmt/format.h>

#include <cstdio>
#include <filesystem>

#include "sys/process/run.hpp"
#include "sys/process/small_file.hpp"

namespace hf::cli {
namespace {
namespace fs = std::filesystem;

constexpr const char* kMemberUnit = "holdfast-etcd.service";
constexpr const char* kGuardUnit = "holdfast-guard.service";
constexpr const char* kDaemonUnit = "holdfastd.service";

Status systemctl(std::vector<std::string> words) {
  words.insert(words.begin(), "systemctl");
  TRY_ASSIGN(const auto done, process::run_tool(words));
  if (done.ok()) return {};
  return Error{Code::failed, fmt::format("systemd refused `systemctl {}`: {}. `journalctl -u {}` says more.",
                                         words.at(1), done.complaint(), words.back())};
}

class Systemd : public InitSystem {
 public:
  Status check_installed() override {
    for (const char* unit : {kGuardUnit, kDaemonUnit}) {
      TRY_ASSIGN(const auto found, process::run_tool({"systemctl", "cat", "--no-pager", unit}));
      if (found.ok()) continue;
      return Error{Code::not_found,
                   fmt::format("The unit {} is not installed. Install the package, or run `cmake "
                               "--install` with --prefix /usr, then `systemctl daemon-reload`.",
                               unit)};
    }
    return {};
  }
  Status start_member(const etcd::MemberConfig& member) override {
    TRY(process::replace_file(std::string("/etc/systemd/system/") + kMemberUnit, etcd::member_unit(member), 0644));
    TRY(systemctl({"daemon-reload"}));
    TRY(systemctl({"enable", kMemberUnit}));
    // One of an earlier attempt, which knows an earlier CA, may run.
    return systemctl({"restart", kMemberUnit});
  }
  std::chrono::seconds member_patience() const override { return std::chrono::seconds(60); }
  Status start_daemons(const std::string&) override {
    return systemctl({"enable", "--now", kGuardUnit, kDaemonUnit});
  }
  Result<bool> stop_daemon() override {
    TRY(systemctl({"stop", kDaemonUnit}));
    return true;
  }
  Status restart_daemons(const std::string&) override {
    TRY(systemctl({"restart", kGuardUnit}));
    return systemctl({"restart", kDaemonUnit});
  }
};

std::string shell_word(const std::string& word) {
  const bool plain = word.find_first_not_of(
                         "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                         "-_./:=,@+") == std::string::npos;
  if (plain && !word.empty()) return word;
  std::string out = "'";
  for (const char c : word) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

class Printed : public InitSystem {
 public:
  explicit Printed(std::string program_dir) : program_dir_(std::move(program_dir)) {}

  Status check_installed() override { return {}; }
  Status start_member(const etcd::MemberConfig& member) override {
    say("Start holdfast-etcd", etcd::member_command(member));
    fmt::print("Waiting for it to answer.\n");
    std::fflush(stdout);
    return {};
  }
  std::chrono::seconds member_patience() const override { return std::chrono::seconds(600); }
  Status start_daemons(const std::string& config) override { return say_both("Start", config); }
  Result<bool> stop_daemon() override {
    return false;
  }  // the lock of the store's file tells whether it was done
  Status restart_daemons(const std::string& config) override { return say_both("Restart", config); }

 private:
  Status say_both(const std::string& verb, const std::string& config) {
    for (const char* name : {"holdfast-guard", "holdfastd"})
      say(verb + " " + name, {program(name), "--config", config});
    return {};
  }
  static void say(const std::string& what, const std::vector<std::string>& argv) {
    std::string command;
    for (const auto& word : argv) command += " " + shell_word(word);
    fmt::print("{}:{}\n", what, command);
    std::fflush(stdout);
  }
  std::string program(const std::string& name) const {
    std::error_code ignored;  // cannot be looked at: not there
    for (const auto* folder : {"/", "/../sbin/"}) {
      const fs::path path = program_dir_ + folder + name;
      if (fs::exists(path, ignored)) return path.lexically_normal().string();
    }
    return "/usr/sbin/" + name;
  }
  const std::string program_dir_;
};
}  // namespace

std::unique_ptr<InitSystem> systemd() { return std::make_unique<Systemd>(); }
std::unique_ptr<InitSystem> no_init_system(const std::string& program_dir) {
  return std::make_unique<Printed>(program_dir);
}
std::unique_ptr<InitSystem> detect_init_system(const std::string& config, const std::string& program_dir) {
  std::error_code ignored;  // cannot be looked at: not there
  const bool usable = fs::exists("/run/systemd/system", ignored) && config == kInstalledConfig;
  return usable ? systemd() : no_init_system(program_dir);
}

std::string own_folder() {
  std::error_code ignored;  // then nothing is found beside it
  return fs::read_symlink("/proc/self/exe", ignored).parent_path().string();
}

}  // namespace hf::cli
