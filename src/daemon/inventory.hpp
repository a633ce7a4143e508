#pragma once
// Inventory: keeps this host's HostRecord true: which datastores are mounted (found by their marker, not by their
// path), which networks have a bridge, capacity, addresses; makes its heartbeat slots and tells the guard where to
// write them. Owns one thread. Thread-safe.
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "core/record/records.hpp"
#include "daemon/surroundings.hpp"
#include "guard/client.hpp"
#include "port/store.hpp"
#include "sys/datastore/call_worker.hpp"

namespace hf::daemon {

class Inventory {
 public:
  static constexpr std::size_t kSlotsMax = 5;  // as many heartbeat datastores as vSphere allows

  // `fixed`: what the inventory does not find out (host, version, addresses, capacity, accelerator).
  // `certificate_pem`: this host's. All must outlive this.
  // `qemu_facts` is asked at each look: what QEMU says of itself, where that has changed.
  struct QemuFacts {
    std::string version;
    record::HostCpu cpu;
  };
  using AskQemu = std::function<std::optional<QemuFacts>()>;
  Inventory(record::HostRecord fixed, AskQemu ask_qemu, std::string certificate_pem, Store& store,
            guard::GuardClient& guard, SharedSurroundings& surroundings);
  ~Inventory();

  // What the cluster's records name. Any thread; the inventory looks again at once.
  void set_wanted(std::vector<record::DatastoreRecord> datastores, std::vector<record::NetworkRecord> networks);
  // Datastores, by id, that this host must not use although they are mounted, and why. Any thread.
  void set_barred(std::map<std::string, std::string> barred);
  // This host's record is gone from the store. If the host was removed, the process is asked to start anew (SIGHUP); if
  // not, the record is made again. Any thread.
  void check_record();

 private:
  // What the store says of this host; a former life of the daemon may have written it.
  bool know_committed();
  bool may_enter();
  void run();
  void look();
  Status usable(const record::DatastoreRecord& datastore, const std::string& path);
  std::vector<std::string> renewed_slots();
  std::vector<std::string> choose_slots(const std::vector<record::DatastoreRecord>& wanted,
                                        const Surroundings& found) const;
  void publish(record::HostRecord next, const Surroundings& found);
  void tell_guard(const std::vector<std::string>& slots, const Surroundings& found);

  record::HostRecord fixed_;  // inventory thread only
  const AskQemu ask_qemu_;
  const std::string certificate_pem_;
  std::optional<record::HostRecord>
      committed_;  // as it stands in the store; unset: not known yet. Inventory thread only
  Version committed_version_ = 0;  // 0: it is not there. Inventory thread only
  bool asked_ = false;             // for a new start; inventory thread only
  Store& store_;
  guard::GuardClient& guard_;
  SharedSurroundings& surroundings_;
  std::map<std::string, std::unique_ptr<datastore::CallWorker>> workers_;  // by datastore id; inventory thread only
  std::map<std::string, std::string> slot_paths_;                          // inventory thread only

  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false, look_again_ = false, told_ = false, check_record_ = false;
  std::vector<record::DatastoreRecord> datastores_;
  std::vector<record::NetworkRecord> networks_;
  std::map<std::string, std::string> barred_;
  std::thread thread_;
};

}  // namespace hf::daemon
