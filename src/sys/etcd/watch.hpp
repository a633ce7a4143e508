#pragma once
// EtcdWatch: follows the keys under a prefix, whatever happens to single members. Internal to sys/etcd.
//
// One thread, which alone calls the watcher. State:
//   next_ == 0  the watcher knows nothing, or too little -> list, on_reset, next_ = version + 1
//   next_ > 0   every change before next_ was handed on  -> follow a stream from next_
// A stream is left for the next endpoint when it ends, when its member has no leader (`hasleader`), or when
// nothing was heard for kSilence; to hear something, a progress request is sent every kPing. When no endpoint
// could go on, the watcher is told once (on_lost) and starts over with on_reset. It never skips a change and
// never hands one on twice in a row.
#include <grpcpp/alarm.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "sys/etcd/endpoints.hpp"

namespace hf::etcd {

class EtcdWatch final : public Watch {
 public:
  EtcdWatch(std::shared_ptr<Endpoints> endpoints, const std::string& prefix, Watcher& watcher);
  ~EtcdWatch() override;
  EtcdWatch(const EtcdWatch&) = delete;
  EtcdWatch& operator=(const EtcdWatch&) = delete;

 private:
  class Stream;

  void run();
  void lose();
  void pause();
  bool start_over(Endpoint& endpoint);
  bool follow(Endpoint& endpoint);
  bool take(const pb::WatchResponse& response);

  std::shared_ptr<Endpoints> endpoints_;  // shared with the store
  std::string prefix_;
  Watcher& watcher_;
  Version next_ = 0;
  bool lost_ = true;  // no on_lost before the first on_reset
  std::string why_;
  std::atomic<bool> stopping_{false};
  grpc::CompletionQueue queue_;
  grpc::Alarm wake_;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace hf::etcd
