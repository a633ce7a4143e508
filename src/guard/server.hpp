#pragma once
// GuardServer: the process holdfast-guard. One thread runs everything here: it waits on the deadline, the
// socket and the slot writers' reports, asks the pure ha::Guard what to do, does it, and answers. Slot
// writers have threads of their own. safety (deadline): each wake-up looks at the deadline before anything
// else; nothing on this thread waits for a disk.
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/ha/guard.hpp"
#include "guard/protocol.hpp"
#include "guard/slot_writer.hpp"
#include "guard/vm_control.hpp"

namespace hf::guard {

struct Config {
  HostId host;
  std::string run_dir;  // on tmpfs, root's; holds guard.sock, guard.state, guard.lock
  Duration heartbeat = 1s;
  Duration freeze_after = 0ns;
  bool alone = false;  // single host: no VM is ever frozen
};
class GuardServer {
 public:
  static constexpr std::size_t kClientsMax = 16;
  static constexpr std::size_t kSlotsMax = 8;
  static constexpr std::size_t kStuckThreadsMax =
      16;  // left behind on hung datastores; beyond: `slots` is refused

  explicit GuardServer(Config config);
  ~GuardServer();
  GuardServer(const GuardServer&) = delete;
  GuardServer& operator=(const GuardServer&) = delete;

  // Takes the run directory, finds the VMs of its predecessor, listens. Code::conflict: another guard has the
  // directory.
  Status open();
  // Until SIGTERM or SIGINT. VMs stay as they are: their pages hold them if no guard comes back in time.
  Status run();

 private:
  struct Client {
    bool subscribed = false;
  };
  struct Slot {
    SlotTarget target;
    std::unique_ptr<SlotWriter> writer;
    SlotReport report;
    Instant begun{};
  };

  Status take_lock();
  Status listen();
  void restore();
  void wait_and_handle();
  void arm_timer(bool retry_soon);
  void carry_out();
  void announce(const ha::GuardAction& action);
  void accept_client();
  void handle_client(int fd);
  Status handle(const Request& request);
  Status admit(const ha::Admission& admission, std::uint64_t generation);
  Status set_slots(const std::vector<SlotTarget>& targets);
  void take_reports();
  void check_slots();
  void check_contact();
  void publish_content();
  Status save_state(const ha::Admission* added);
  GuardStatus status() const;
  VmReport report_of(const VmId& vm) const;
  void push(const GuardEvent& event);
  bool send_packet(int fd, const std::string& packet);
  void close_client(int fd);

  const Config config_;
  ha::Guard guard_;
  VmControl control_;
  std::shared_ptr<SlotContent> content_ = std::make_shared<SlotContent>();  // shared with slot threads
  std::shared_ptr<ReportQueue> reports_ = std::make_shared<ReportQueue>();  // shared with slot threads
  std::map<std::uint64_t, Slot> slots_;                                     // by writer number
  std::vector<std::weak_ptr<const void>> left_behind_;
  std::map<int, Client> clients_;  // by socket
  SessionId session_;
  bool announced_fresh_ = false;
  std::uint64_t announced_generation_ = 0;
  std::string incarnation_;
  std::uint64_t next_writer_ = 1;
  int lock_fd_ = -1, listen_fd_ = -1, epoll_fd_ = -1, timer_fd_ = -1, signal_fd_ = -1;
  bool stopping_ = false;
};

}  // namespace hf::guard
