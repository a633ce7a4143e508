#pragma once
// WatchHub: calls the watchers of a store that lives in this process (SqliteStore, sim::MemoryStore), from
// one thread of its own, so that a watcher may call the store again. It decides nothing and forgets nothing:
// its queue is unbounded, because dropping a change would break the watch; a watcher must not block for long.
// Thread-safe. `add` and `publish` are called under the store's lock: their order is the order of versions.
// A Watch must end before the store it came from.
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "port/store.hpp"

namespace hf {

class WatchHub {
 public:
  WatchHub();
  ~WatchHub();
  WatchHub(const WatchHub&) = delete;
  WatchHub& operator=(const WatchHub&) = delete;

  // `present` is what the watcher's on_reset gets.
  std::unique_ptr<Watch> add(const std::string& prefix, Watcher& watcher, Snapshot present);
  // The changes of one version, in the order of keys.
  void publish(const std::vector<Change>& changes, Version version);

 private:
  class HubWatch;
  struct Listener {
    std::string prefix;
    Watcher* watcher;
  };
  struct Item {
    std::uint64_t listener;
    std::function<void(Watcher&)> call;
  };

  void run();
  void remove(std::uint64_t listener);

  std::mutex mutex_;
  std::condition_variable wake_;  // something is queued, or the end
  std::condition_variable idle_;  // a call has returned
  std::map<std::uint64_t, Listener> listeners_;
  std::deque<Item> queue_;
  std::uint64_t next_ = 1;
  std::uint64_t calling_ = 0;  // the listener being called; 0: none
  bool ending_ = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace hf
