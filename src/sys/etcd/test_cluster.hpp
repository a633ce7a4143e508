#pragma once
// Real etcd processes on loopback, and a TCP relay that misbehaves on demand. For tests only; ends what it
// started.
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/testing/temp_folder.hpp"
#include "sys/etcd/etcd_store.hpp"
#include "sys/etcd/member.hpp"
#include "sys/process/run.hpp"

namespace hf::etcd::test {

using hf::test::TempFolder;

inline sockaddr_in loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// A port nobody listens on, below the range that the kernel gives to outgoing connections.
inline int free_port() {
  static std::mt19937 random{std::random_device{}()};
  for (int tries = 0; tries < 1000; ++tries) {
    const int port = std::uniform_int_distribution<int>(15000, 32000)(random);
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_in address = loopback(port);
    const bool free = ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
    ::close(fd);
    if (free) return port;
  }
  return 0;
}

inline std::string at_port(int port) { return "127.0.0.1:" + std::to_string(port); }

// Runs a command line of the shell; its standard output.
inline std::string shell(const std::string& command) {
  const auto run = process::run_tool({"/bin/sh", "-c", command});
  return run.ok() ? run->out : run.error().what;
}

// Polls until `done`; false after 60 s: a limit for a hung test, not a figure.
inline bool eventually(const std::function<bool()>& done) {
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!done()) {
    if (std::chrono::steady_clock::now() > limit) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return true;
}

// One etcd process.
class Process {
 public:
  Process(MemberConfig member, std::string log) : config(std::move(member)), log_(std::move(log)) {}
  ~Process() { kill(); }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  void start() {
    const auto words = member_command(config);
    std::vector<char*> argv;
    for (const auto& word : words) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    posix_spawn_file_actions_t files;
    ::posix_spawn_file_actions_init(&files);
    ::posix_spawn_file_actions_addopen(&files, 1, log_.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    ::posix_spawn_file_actions_adddup2(&files, 1, 2);
    if (::posix_spawn(&pid_, argv[0], &files, nullptr, argv.data(), environ) != 0) pid_ = 0;
    ::posix_spawn_file_actions_destroy(&files);
  }
  void kill() {
    if (pid_ == 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }
  void stop() { ::kill(pid_, SIGSTOP); }
  void go_on() { ::kill(pid_, SIGCONT); }

  MemberConfig config;

 private:
  std::string log_;
  pid_t pid_ = 0;
};

class Cluster {
 public:
  explicit Cluster(int count, std::optional<EtcdTls> tls = {}) : tls_(std::move(tls)) {
    for (int i = 0; i < count; ++i) prepare("host" + std::to_string(i + 1));
    std::map<std::string, std::string> all;
    for (const auto& member : members) all[member->config.name] = url_of(*member);
    for (const auto& member : members) {
      member->config.initial_cluster = all;
      member->start();
    }
  }
  // A member that is not started yet.
  Process& prepare(const std::string& name) {
    MemberConfig config;
    config.name = name;
    config.data_dir = folder.path() + "/" + name;
    config.client_address = at_port(free_port());
    config.peer_address = at_port(free_port());
    config.token = folder.path();
    config.client_tls = tls_;
    config.peer_tls = tls_;
    members.push_back(std::make_unique<Process>(config, folder.path() + "/" + name + ".log"));
    return *members.back();
  }
  std::string url_of(const Process& member) const {
    return peer_url(member.config.peer_address, tls_.has_value());
  }
  EtcdOptions options(Duration timeout = 10s) const {
    EtcdOptions options;
    for (const auto& member : members) options.endpoints.push_back(member->config.client_address);
    options.prefix = "/holdfast/test/";
    options.tls = tls_;
    options.store.timeout = timeout;
    return options;
  }
  // A store that has reached the cluster; nullptr if it does not come up.
  static std::unique_ptr<EtcdStore> ready(const EtcdOptions& options) {
    auto opened = EtcdStore::open(options);
    if (!opened.ok()) return nullptr;
    auto store = std::move(opened).value();
    Status listed;
    const auto answers = [&] {
      const auto all = store->list("");
      listed = all.ok() ? Status() : all.error();
      return all.ok();
    };
    if (eventually(answers)) return store;
    std::fprintf(stderr, "etcd does not come up: %s\n", listed.error().what.c_str());
    return nullptr;
  }
  std::string control(const std::string& arguments) const {
    std::string all;
    for (const auto& member : members) all += (all.empty() ? "" : ",") + member->config.client_address;
    return shell("ETCDCTL_API=3 etcdctl --endpoints=" + all + " " + arguments + " 2>&1");
  }
  // REQUIRES: plain TCP, all members run
  Process* leader() const {
    for (const auto& member : members) {
      const std::string line = shell("ETCDCTL_API=3 etcdctl --endpoints=" + member->config.client_address +
                                     " endpoint status -w fields 2>&1");
      const auto number = [&](const std::string& name) {
        const auto found = line.find("\"" + name + "\" : ");
        return found == std::string::npos
                   ? std::string()
                   : line.substr(found + name.size() + 5, line.find('\n', found) - found - name.size() - 5);
      };
      if (!number("MemberID").empty() && number("MemberID") == number("Leader")) return member.get();
    }
    return nullptr;
  }

  TempFolder folder;
  std::vector<std::unique_ptr<Process>> members;

 private:
  std::optional<EtcdTls> tls_;
};

}  // namespace hf::etcd::test
