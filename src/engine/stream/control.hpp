#pragma once
// Control: one side's use of a motion's control connection: its keep-alives (a thread, "hf-keepalive"), its last words
// when the motion ends early, and the other side's.
#include <condition_variable>
#include <functional>
#include <thread>

#include "engine/stream/connection.hpp"
#include "engine/wire/message.hpp"

namespace hf::engine::stream {

class Control {
 public:
  // Both must outlive it. `peer_role`: "source" or "destination", for texts.
  Control(Connection& connection, Failure& failure, Duration silence, std::string peer_role);
  ~Control();
  Control(const Control&) = delete;
  Control& operator=(const Control&) = delete;

  // Any thread.
  Status write(wire::Kind kind, wire::Bytes body = {});
  // Ends the motion's connections with this error, if it is the first, and tells the other side. Any thread.
  void fail(const Error& error);

  // One thread: the next frame that is no keep-alive. The other side's last words: Code::failed with its reason, also
  // if something else broke meanwhile: connections break because the other side gave up.
  // Code::timed_out at the deadline, if there is one; otherwise the other side may take its time, but not be silent.
  Result<Frame> read(std::optional<Instant> deadline = std::nullopt);

 private:
  Result<Frame> read_once(std::optional<Instant> deadline);
  void keep_alive();

  Connection& connection_;
  Failure& failure_;
  const Duration silence_;
  const std::string peer_role_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool ending_ = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace hf::engine::stream
