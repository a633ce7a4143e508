#pragma once
// Beat: sends this host's network heartbeats to the others and posts those it hears. The key comes from the store
// (the cluster CA's secret, hashed), so until the store has been reached once there are none. Owns one thread.
#include <atomic>
#include <memory>
#include <thread>

#include "base/ids.hpp"
#include "base/time.hpp"
#include "daemon/control.hpp"
#include "daemon/mailbox.hpp"
#include "port/store.hpp"
#include "sys/net/heartbeat.hpp"

namespace hf::daemon {

class Beat {
 public:
  // All must outlive this.
  Beat(HostId self, std::string listen, Duration interval, Store& store, Mailbox& mailbox, const Control& control);
  ~Beat();

 private:
  void run();
  Result<net::HeartbeatKey> fetch_key();

  const HostId self_;
  const std::string listen_;
  const Duration interval_;
  Store& store_;
  Mailbox& mailbox_;
  const Control& control_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace hf::daemon
