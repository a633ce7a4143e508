#include "api/streams.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <deque>
#include <set>

#include "api/to_json.hpp"

namespace hf::api {
namespace {
constexpr auto kPatience = std::chrono::milliseconds(500);
constexpr std::size_t kEventsQueuedMax =
    4096;  // the follower is cut off beyond; it comes back with Last-Event-ID
constexpr int kConsoleWriteMs = 2000;

std::string frame(const record::EventRecord& event) {
  return "id: " + event.id + "\nevent: " + event.kind + "\ndata: " + to_json(event) + "\n\n";
}

// Watcher callbacks come from the store's thread, next() from the server's.
class EventStream : public Stream, private Watcher {
 public:
  EventStream(std::string after, std::shared_ptr<void> place)
      : after_(std::move(after)), place_(std::move(place)) {}
  ~EventStream() override { watch_.reset(); }

  Status begin(Store& store) {
    TRY_ASSIGN(watch_, store.watch(record::key::kEvents, *this));
    return {};
  }

  std::optional<std::string> next() override {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kPatience, [this] { return !queue_.empty() || overrun_; });
    if (overrun_) return std::nullopt;
    if (queue_.empty()) return "";
    std::string out;
    for (const auto& text : queue_) out += text;
    queue_.clear();
    return out;
  }

 private:
  void on_reset(const Snapshot& snapshot) override {
    const std::scoped_lock lock(mutex_);
    const bool only_new = after_.empty() && !begun_;
    begun_ = true;
    std::set<std::string> present;
    for (const auto& entry : snapshot.entries) {
      present.insert(entry.key);
      if (!seen_.contains(entry.key) && !only_new && entry.key > record::key::kEvents + after_) push(entry);
    }
    seen_ = std::move(present);
    changed_.notify_all();
  }
  void on_changes(const std::vector<Change>& changes, Version) override {
    const std::scoped_lock lock(mutex_);
    for (const auto& change : changes) {
      if (change.erased)
        seen_.erase(change.entry.key);
      else if (seen_.insert(change.entry.key).second)
        push(change.entry);
    }
    changed_.notify_all();
  }
  void on_lost(const Error&) override {}

  void push(const Entry& entry) {
    const auto event = record::decode<record::EventRecord>(entry.value);
    if (!event.ok()) return;  // a damaged event must not end the stream of the others
    if (queue_.size() >= kEventsQueuedMax)
      overrun_ = true;
    else
      queue_.push_back(frame(*event));
  }

  std::string after_;
  std::shared_ptr<void> place_;  // shared with nobody: a scope guard of the StreamLimit
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::string> queue_;
  std::set<std::string> seen_;
  bool begun_ = false, overrun_ = false;
  std::unique_ptr<Watch> watch_;
};
}  // namespace

std::shared_ptr<void> StreamLimit::take() {
  if (used_->fetch_add(1) >= kStreamsMax) {
    used_->fetch_sub(1);
    return nullptr;
  }
  return std::shared_ptr<void>(used_.get(), [used = used_](void*) { used->fetch_sub(1); });
}

Result<std::unique_ptr<Stream>> follow_events(Store& store, const std::string& after,
                                              std::shared_ptr<void> place) {
  auto stream = std::make_unique<EventStream>(after, std::move(place));
  TRY(stream->begin(store));
  return std::unique_ptr<Stream>(std::move(stream));
}

struct Consoles::Session {
  explicit Session(int socket) : fd(socket) { ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK); }
  ~Session() { ::close(fd); }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  Status write(const std::string& name, const std::string& input) {
    const std::scoped_lock lock(writing);
    std::size_t done = 0;
    while (done < input.size()) {
      pollfd waiting{fd, POLLOUT, 0};
      const int ready = ::poll(&waiting, 1, kConsoleWriteMs);
      if (ready == 0) return Error{Code::timed_out, "VM " + name + " does not read its console."};
      const ssize_t n = ::send(fd, input.data() + done, input.size() - done, MSG_NOSIGNAL);
      if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
      if (n < 0) return from_errno("Cannot write to the console of VM " + name, errno);
      done += static_cast<std::size_t>(n);
    }
    return {};
  }
  const int fd;
  std::mutex writing;
};

class Consoles::Output : public Stream {
 public:
  Output(std::shared_ptr<Session> session, std::shared_ptr<void> place)
      : session_(std::move(session)), place_(std::move(place)) {}
  std::optional<std::string> next() override {
    pollfd waiting{session_->fd, POLLIN, 0};
    if (::poll(&waiting, 1, static_cast<int>(kPatience.count())) <= 0) return "";
    std::string out(16384, '\0');
    const ssize_t n = ::recv(session_->fd, out.data(), out.size(), 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return "";
    if (n <= 0) return std::nullopt;
    out.resize(static_cast<std::size_t>(n));
    return out;
  }

 private:
  std::shared_ptr<Session> session_;  // shared with writers that are at it
  std::shared_ptr<void> place_;
};

Result<std::unique_ptr<Stream>> Consoles::attach(const VmId& vm, const std::string& name,
                                                 std::shared_ptr<void> place) {
  const std::scoped_lock lock(mutex_);
  if (!sessions_[vm.text].expired()) {
    return Error{Code::conflict,
                 "Somebody else has the console of VM " + name + " open: close it there first."};
  }
  TRY_ASSIGN(const int fd, services_.open_console(vm));
  auto session = std::make_shared<Session>(fd);
  std::erase_if(sessions_, [](const auto& one) { return one.second.expired(); });
  sessions_[vm.text] = session;
  return std::unique_ptr<Stream>(std::make_unique<Output>(std::move(session), std::move(place)));
}

Status Consoles::write(const VmId& vm, const std::string& name, const std::string& input) {
  std::shared_ptr<Session> session;
  {
    const std::scoped_lock lock(mutex_);
    const auto found = sessions_.find(vm.text);
    if (found != sessions_.end()) session = found->second.lock();
  }
  if (!session) {
    TRY_ASSIGN(const int fd, services_.open_console(vm));
    session = std::make_shared<Session>(fd);
  }
  return session->write(name, input);
}

}  // namespace hf::api
