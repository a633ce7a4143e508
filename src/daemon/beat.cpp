#include "daemon/beat.hpp"

#include <openssl/sha.h>
#include <pthread.h>

#include "base/log.hpp"

namespace hf::daemon {

Beat::Beat(HostId self, std::string listen, Duration interval, Store& store, Mailbox& mailbox, const Control& control)
    : self_(std::move(self)), listen_(std::move(listen)), interval_(interval), store_(store), mailbox_(mailbox),
      control_(control), thread_([this] { run(); }) {
  pthread_setname_np(thread_.native_handle(), "hf-beat");
}

Beat::~Beat() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

Result<net::HeartbeatKey> Beat::fetch_key() {
  TRY_ASSIGN(const Entry secret, store_.get(record::key::kCaSecret));
  const std::string seed = "holdfast heartbeat\n" + secret.value;
  net::HeartbeatKey key(SHA256_DIGEST_LENGTH);
  SHA256(reinterpret_cast<const unsigned char*>(seed.data()), seed.size(), key.data());
  return key;
}

void Beat::run() {
  std::unique_ptr<net::HeartbeatSocket> socket;
  std::string last_trouble;
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, interval_, [this] { return stopping_; })) {
    lock.unlock();
    if (!socket) {
      auto key = fetch_key();
      auto opened = key.ok() ? net::HeartbeatSocket::open(listen_, self_, *key,
                                                          [this](const HostId& from) {
                                                            mailbox_.post(ha::event::HeartbeatHeard{from});
                                                          })
                             : Result<std::unique_ptr<net::HeartbeatSocket>>(key.error());
      if (opened.ok()) {
        socket = std::move(*opened);
      } else if (opened.error().what != last_trouble) {
        last_trouble = opened.error().what;
        log(Level::warn, "No network heartbeats yet.", {{"why", last_trouble}});
      }
    }
    if (socket) socket->send_to(control_.status().heartbeat_addresses);
    lock.lock();
  }
}

}  // namespace hf::daemon
