#pragma once
// CallWorker: runs file calls that may hang (a dead NFS server) and gives up on them after a deadline. One
// for each datastore; one thread each, never more: while a call hangs, further calls fail at once. Giving up
// does not undo: the call may still take effect later. So it is used for what may be repeated (reads, slots,
// owner files guarded by epochs), and Code::timed_out means "not known to be done".
// Thread-safe. Destroying it waits for no hanging call: its thread then stays behind until the storage
// answers.
#include <functional>
#include <memory>
#include <optional>

#include "base/result.hpp"
#include "base/time.hpp"

namespace hf::datastore {

class CallWorker {
 public:
  CallWorker();
  ~CallWorker();
  CallWorker(const CallWorker&) = delete;
  CallWorker& operator=(const CallWorker&) = delete;

  // Code::timed_out: it did not end in time, or an earlier call still hangs. `call` may outlive the caller:
  // it must own all it uses.
  template <class T>
  Result<T> run(Duration patience, std::function<Result<T>()> call) {
    auto result =
        std::make_shared<std::optional<Result<T>>>();  // shared with the worker, which may outlive this call
    TRY(run_job(patience, [result, call = std::move(call)] { result->emplace(call()); }));
    return std::move(**result);
  }
  // A call hangs at this moment.
  bool stuck() const;

 private:
  struct State;
  Status run_job(Duration patience, std::function<void()> job);
  std::shared_ptr<State> state_;  // shared with the thread, which may stay behind
};

}  // namespace hf::datastore
