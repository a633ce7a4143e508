#pragma once
// Surroundings: what this host has of the things VMs name: datastores that are mounted and proven by their marker,
// networks whose bridge exists. A snapshot, published by the inventory, read by whoever starts a VM or makes an
// image. Thread-safe.
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "base/ids.hpp"
#include "base/result.hpp"

namespace hf::daemon {

struct Surroundings {
  struct Datastore {
    DatastoreId id;
    std::string path;
    bool shared = true;
  };
  struct Network {
    std::string bridge;
    int vlan = 0;
  };
  std::map<std::string, Datastore> datastores;  // by name, usable now
  std::map<std::string, Network> networks;      // by name, bridge present
};

class SharedSurroundings {
 public:
  std::shared_ptr<const Surroundings> get() const {
    std::lock_guard lock(mutex_);
    return now_;
  }
  void publish(Surroundings surroundings) {
    auto next = std::make_shared<const Surroundings>(std::move(surroundings));
    std::lock_guard lock(mutex_);
    now_ = std::move(next);
  }

 private:
  mutable std::mutex mutex_;
  // Shared with readers that still use an older snapshot.
  std::shared_ptr<const Surroundings> now_ = std::make_shared<const Surroundings>();
};

}  // namespace hf::daemon
