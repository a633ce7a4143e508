// holdfastd --config FILE: one a host. It decides and acts; killing it stops no VM. SIGHUP: it starts anew.
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "base/log.hpp"
#include "config/config.hpp"
#include "daemon/daemon.hpp"
#include "daemon/version.hpp"

namespace {

int fail(const hf::Error& error) {
  hf::log(hf::Level::error, error.what);
  return hf::info(error.code).exit_status;
}

}  // namespace

int main(int count, char** arguments) {
  if (count == 2 && std::strcmp(arguments[1], "--version") == 0) {
    std::printf("holdfastd %s\n", hf::daemon::kVersion.data());
    return 0;
  }
  if (count != 3 || std::strcmp(arguments[1], "--config") != 0) {
    std::fputs("usage: holdfastd --config FILE\n", stderr);
    return 2;
  }
  // Before the first thread: all of them inherit the mask, and sigwait below gets the signals.
  sigset_t ending;
  sigemptyset(&ending);
  sigaddset(&ending, SIGTERM);
  sigaddset(&ending, SIGINT);
  sigaddset(&ending, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &ending, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  auto config = hf::config::load_config(arguments[2]);
  if (!config.ok()) return fail(config.error());
  auto daemon = hf::daemon::Daemon::start(*config);
  if (!daemon.ok()) return fail(daemon.error());
  hf::log(hf::Level::info, "holdfastd runs", {{"host", config->host}, {"api", config->api_listen}});
  int signal = 0;
  sigwait(&ending, &signal);
  daemon->reset();
  if (signal == SIGHUP) {
    hf::log(hf::Level::info, "holdfastd starts anew; VMs run on");
    ::execv("/proc/self/exe", arguments);
    return fail(hf::from_errno("Cannot start anew", errno));
  }
  hf::log(hf::Level::info, "holdfastd ends; VMs run on");
  return 0;
}
