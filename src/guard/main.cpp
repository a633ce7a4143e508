// holdfast-guard --config FILE: freezes this host's VMs when it can renew neither its store session nor a
// heartbeat slot in time.
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "base/log.hpp"
#include "config/config.hpp"
#include "core/ha/timing.hpp"
#include "guard/server.hpp"

namespace {

// Neither is given to everybody; without them the guard works, but the machine's load can delay it: the hold
// pages stay.
void become_punctual() {
  sched_param priority{};
  priority.sched_priority = 50;
  if (sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &priority) != 0) {
    hf::log(hf::Level::warn, "no real-time priority; give the guard CAP_SYS_NICE",
            {{"why", std::strerror(errno)}});
  }
  if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0) {
    hf::log(hf::Level::warn, "memory is not locked; give the guard CAP_IPC_LOCK",
            {{"why", std::strerror(errno)}});
  }
}

// A log reader that is stuck must not stop the guard: lines that do not fit are lost.
void never_wait_for_the_log() {
  if (isatty(STDERR_FILENO) == 0) fcntl(STDERR_FILENO, F_SETFL, fcntl(STDERR_FILENO, F_GETFL) | O_NONBLOCK);
}

int fail(const hf::Error& error) {
  hf::log(hf::Level::error, error.what);
  return hf::info(error.code).exit_status;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3 || std::strcmp(arguments[1], "--config") != 0) {
    std::fputs("usage: holdfast-guard --config FILE\n", stderr);
    return 2;
  }
  const auto host = hf::config::load_config(arguments[2]);
  if (!host.ok()) return fail(host.error());
  hf::guard::Config config;
  config.host = hf::HostId(host->host);
  config.run_dir = host->run_dir;
  const auto timing = hf::ha::Timing::from_heartbeat(std::chrono::milliseconds(host->heartbeat_ms));
  config.heartbeat = timing.heartbeat;
  config.freeze_after = timing.freeze_after;
  // A store of its own: nobody else could start this host's VMs.
  config.alone = host->store.kind == hf::config::StoreKind::sqlite;
  never_wait_for_the_log();
  become_punctual();
  std::error_code failed;
  std::filesystem::create_directories(config.run_dir, failed);
  if (failed) return fail(hf::from_errno("Cannot make " + config.run_dir, failed.value()));
  hf::guard::GuardServer server(config);
  if (const auto opened = server.open(); !opened.ok()) return fail(opened.error());
  hf::log(hf::Level::info, "guard runs", {{"host", config.host.text}, {"run_dir", config.run_dir}});
  if (const auto ran = server.run(); !ran.ok()) return fail(ran.error());
  return 0;
}
