#pragma once
// What holdfastd and its holdfast-motion say to each other: one JSON object a line over an inherited socket
// (doc/formats.md "Motion process"). Typed; the same code for both ends. Pure.
//
// The decoder takes what the encoder makes and nothing else: a missing member, an unknown one, a wrong type, a number
// out of range or a line that is too long are Code::invalid. Both ends are one release: a running process is told apart
// by its own binary.
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/ids.hpp"
#include "base/result.hpp"
#include "base/time.hpp"
#include "engine/connection.hpp"

namespace hf::motion {

inline constexpr std::size_t kLineMax = 64 * 1024;

// What copies the memory.
enum class Engine { holdfast, qemu };

// What both sides are told first.
struct Leg {
  TaskId motion;
  VmId vm;
  std::string token;    // of the motion's record
  HostId peer;          // the other host
  std::string run_dir;  // the VM's, with its sockets
  Engine engine = Engine::holdfast;
  engine::Encryption encryption = engine::Encryption::required;
  std::string ca, certificate, key;  // PEM files; all empty: no TLS
  bool operator==(const Leg&) const = default;
};

// --- from holdfastd

// The first message to `holdfast-motion send`.
struct Send {
  Leg leg;
  std::string endpoint;  // where the destination listens
  Duration stop_max = 20ms;
  std::uint64_t bytes_per_second = 0;  // 0: no limit
  bool stop_max_fixed = false;  // the user has named it: QEMU's own migration aims at no longer one
  std::vector<std::string> disks = {};  // that go along, as QEMU's nodes name them; only with Engine::holdfast
  std::uint64_t room_bytes = 0;        // that are free for them at the destination
  bool operator==(const Send&) const = default;
};
// The new image of a disk that comes along: made, and empty.
struct IncomingDisk {
  std::string name;    // as in Send
  std::string path;
  std::string format;  // QEMU's name of it
  bool operator==(const IncomingDisk&) const = default;
};
// The first message to `holdfast-motion receive`.
struct Receive {
  Leg leg;
  std::string address;      // as engine::Listener::open
  Duration patience = 60s;  // until the source has connected
  std::vector<std::string> macs;  // of the guest's NICs, in the spec's order
  std::vector<IncomingDisk> disks = {};
  bool operator==(const Receive&) const = default;
};
// To the source. safety: the commit was seen to succeed: this host may not run the VM any more.
struct Committed {
  std::uint64_t version = 0;  // that the store gave the commit
  bool operator==(const Committed&) const = default;
};
// safety: to the source: no commit was sent, or it can never be done: the guest goes on here. Either side: give up.
struct Abort {
  std::string why;
  bool operator==(const Abort&) const = default;
};
using Order = std::variant<Send, Receive, Committed, Abort>;

// --- to holdfastd

// receive: the source may come.
struct Listening {
  std::string endpoint;
  bool operator==(const Listening&) const = default;
};
// receive: all of the guest is here; it is stopped, and could run.
struct Loaded {
  Duration load{};  // of the devices' state
  bool operator==(const Loaded&) const = default;
};
// receive: the source says that this host owns the VM. The store says so too, if this word is lost.
struct Arrived {
  std::uint64_t version = 0;  // as in Committed
  bool operator==(const Arrived&) const = default;
};

enum class Phase { connecting, disks, copying, stopping };
// At most kProgressPerSecond.
struct Progress {
  Phase phase = Phase::connecting;
  std::uint64_t round = 0;
  std::uint64_t pages_left = 0;  // of this round
  std::uint64_t pages_all = 0;   // of guest memory
  std::uint64_t disk_bytes_left = 0, disk_bytes_all = 0;  // of the disks that go along, as known so far
  std::uint64_t bytes = 0;       // sent so far, of memory
  std::uint64_t bytes_per_second = 0;
  std::uint64_t share_percent = 100;  // of the time that the guest may run
  bool knows_end = false;
  Duration time_left{};  // until the stop, if knows_end
  bool operator==(const Progress&) const = default;
};
inline constexpr int kProgressPerSecond = 5;

// send: the guest stands still, the destination has loaded all of it. From now on the process does nothing to the guest
// but what Committed or Abort say; if holdfastd goes away it leaves it stopped.
struct ReadyToCommit {
  bool operator==(const ReadyToCommit&) const = default;
};

// What a source's guest does when its process gives up.
enum class Guest {
  runs,     // never stopped, or resumed
  stopped,  // it could not be resumed, or must not be
  none,     // of receive: not its business
};
struct Failed {
  Error error;
  Guest guest = Guest::none;
  bool operator==(const Failed& other) const {
    return error.code == other.error.code && error.what == other.error.what && guest == other.guest;
  }
};

// Where the guest's stop went, in order.
struct StopTimes {
  Duration stop{}, scan{}, save{}, copy{}, load{}, commit{};
  Duration total() const { return stop + scan + save + copy + load + commit; }
  bool operator==(const StopTimes&) const = default;
};
// send, after Committed: all of it went well.
struct Finished {
  std::uint64_t rounds = 0;
  std::uint64_t zero_pages = 0, delta_pages = 0, plain_pages = 0;
  std::uint64_t bytes = 0, state_bytes = 0;
  std::uint64_t least_share_percent = 100;
  Duration took{};            // since Send
  Duration stopped_before{};  // the sum of the stops for scans and of the slow-down
  std::uint64_t disks = 0, disk_bytes = 0;  // that went along
  StopTimes stop;  // with disks, their end is part of `save`
  std::string tracker;  // which, and why
  bool operator==(const Finished&) const = default;
};
using Report = std::variant<Listening, Loaded, Arrived, Progress, ReadyToCommit, Failed, Finished>;

// One line, its newline included.
std::string encode(const Order& order);
std::string encode(const Report& report);
// A line without its newline. Code::invalid.
Result<Order> decode_order(std::string_view line);
Result<Report> decode_report(std::string_view line);

}  // namespace hf::motion
