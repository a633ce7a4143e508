#pragma once
// SlotReader: reads the other hosts' heartbeat slots, one thread for each datastore, and posts what was seen. A
// datastore that hangs stops its own thread's reports and nothing else: no report is no proof.
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/ids.hpp"
#include "base/time.hpp"
#include "daemon/mailbox.hpp"

namespace hf::daemon {

class SlotReader {
 public:
  SlotReader(Mailbox& mailbox, Duration interval);
  ~SlotReader();

  // What is to be read from now on: mount path and the hosts with a slot there, by datastore id. Thread-safe.
  struct Target {
    std::string path;
    std::vector<HostId> hosts;
    bool operator==(const Target&) const = default;
  };
  void set_targets(const std::map<std::string, Target>& targets);

 private:
  struct Reader;
  void run(Reader& reader);

  Mailbox& mailbox_;
  const Duration interval_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::map<std::string, std::unique_ptr<Reader>> readers_;
};

}  // namespace hf::daemon
