#pragma once
// QmpClient: one connection to a QEMU's monitor. QEMU talks to one client at a time; a second one waits in
// the queue of the socket. So connecting is not waited for: greeting and capabilities are handled by the
// client's own reader thread whenever they come (after the thaw, for a frozen QEMU), and a command waits for
// them within its time limit. Thread-safe. Never started from or destroyed in its own callback.
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/result.hpp"
#include "base/time.hpp"
#include "sys/process/unique_fd.hpp"
#include "sys/qemu/qmp_framing.hpp"

namespace hf::qemu {

class QmpClient {
 public:
  // Called from the reader thread; `data` is JSON. Must return soon.
  using OnEvent = std::function<void(const std::string& name, const std::string& data)>;

  // Code::unavailable if nobody listens at `path`.
  static Result<std::unique_ptr<QmpClient>> connect(const std::string& path, OnEvent on_event);
  ~QmpClient();
  QmpClient(const QmpClient&) = delete;
  QmpClient& operator=(const QmpClient&) = delete;

  // The JSON that QEMU returned. `arguments`: a JSON object or empty. `passed_fd`: given to QEMU with the command
  // (getfd, add-fd); it stays the caller's too.
  // Code::failed: QEMU refused, in its words. Code::unavailable, Code::timed_out: it was not asked.
  // Code::outcome_unknown: it was asked and no answer came.
  Result<std::string> execute(std::string_view command, std::string_view arguments, Duration limit,
                              int passed_fd = -1);

  struct Command {
    std::string name, arguments;  // as of execute
  };
  // Sends all at once; QEMU carries them out in this order. Each one's answer, as of execute, whatever came of those
  // before it. For a guest that waits: on a busy host each answer that is waited for costs milliseconds.
  std::vector<Result<std::string>> execute_all(const std::vector<Command>& commands, Duration limit);

  // Whether QEMU has greeted us, so that a command need not wait for that.
  bool is_ready();
  // Whether the connection has ended, waiting for that at most `limit`; all its events were delivered then.
  bool has_closed(Duration limit);

 private:
  QmpClient(process::UniqueFd fd, OnEvent on_event);
  using Deadline = std::chrono::steady_clock::time_point;
  // The number by which its answer is known.
  Result<std::uint64_t> send(std::string_view command, std::string_view arguments, Deadline deadline, int passed_fd);
  Result<std::string> answer_to(std::uint64_t id, std::string_view command, Deadline deadline);
  void read_until_closed();
  bool take(const QmpMessage& message);

  static constexpr std::uint64_t kCapabilitiesId = 1;

  const process::UniqueFd fd_;
  const OnEvent on_event_;
  std::mutex send_mutex_;  // one whole line at a time
  std::mutex mutex_;       // what follows
  std::condition_variable changed_;
  bool ready_ = false;
  bool closed_ = false;
  std::uint64_t next_id_ = kCapabilitiesId + 1;
  std::map<std::uint64_t, std::optional<QmpMessage>> pending_;  // by id: asked, perhaps answered
  std::thread reader_;
};

}  // namespace hf::qemu
