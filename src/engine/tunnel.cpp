#include "engine/tunnel.hpp"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <list>
#include <thread>
#include <utility>
#include <vector>

#include "base/ensure.hpp"
#include "base/log.hpp"
#include "engine/stream/connection.hpp"
#include "engine/stream/throttle.hpp"
#include "engine/wire/message.hpp"
#include "sys/qemu/unix_socket.hpp"

namespace hf::engine {
namespace {
using process::UniqueFd;
using wire::Kind;

constexpr Duration kForever = std::chrono::hours(24);
constexpr std::size_t kFrameBytes = wire::kHeaderBytes + wire::kChunkMax;

void name_thread(const std::string& name) { ::pthread_setname_np(::pthread_self(), name.c_str()); }

// What all streams of one side have in common.
struct Common {
  Common(std::shared_ptr<Failure> end, std::uint64_t bytes_per_second)
      : failure(std::move(end)), throttle(bytes_per_second) {}
  const std::shared_ptr<Failure> failure;  // the motion's
  stream::Throttle throttle;
  std::atomic<std::uint64_t> sent{0}, received{0};
};

// One connection of a program to the tunnel, and the one between the hosts that goes with it. Each direction ends with
// one tunnel_end from the side that sends, and one tunnel_closed from the side that takes: when all of it was taken, or
// before, when nobody is there to take it any more.
class Stream {
 public:
  Stream(UniqueFd program, std::unique_ptr<Connection> connection, std::string channel, Common& common, unsigned number)
      : program_(std::move(program)),
        connection_(std::move(connection)),
        channel_(std::move(channel)),
        common_(common) {
    connection_->set_silence(kForever);  // a program may take its time; the control connection notices a dead link
    const std::string name = "hf-tun-" + std::to_string(number);
    out_ = std::thread([this, name] { run(name + "-out", [this] { return send(); }); });
    in_ = std::thread([this, name] { run(name + "-in", [this] { return take(); }); });
  }
  ~Stream() {
    out_.join();
    in_.join();
  }

  bool has_ended() const { return running_ == 0; }

 private:
  template <class Direction>
  void run(const std::string& name, const Direction& direction) {
    name_thread(name);
    if (const Status done = direction(); !done.ok()) {
      common_.failure->set({done.error().code, "Channel " + channel_ + ": " + done.error().what});
      ::shutdown(program_.get(), SHUT_RDWR);
      connection_->shut_down();
    }
    --running_;
  }

  // Until the program's socket is ready. The error of Failure.
  Status wait_for_program(short events) const {
    pollfd waiting[] = {{program_.get(), events, 0}, {common_.failure->descriptor(), POLLIN, 0}};
    if (::poll(waiting, 2, -1) < 0 && errno != EINTR) return from_errno("Cannot wait for a socket", errno);
    return common_.failure->status();
  }

  // What the program writes, to the other side.
  Status send() {
    std::vector<std::byte> frame(kFrameBytes);
    for (;;) {
      const auto body = std::span(frame).subspan(wire::kHeaderBytes);
      const ssize_t count = ::recv(program_.get(), body.data(), body.size(), MSG_DONTWAIT);
      if (count < 0 && (errno == EAGAIN || errno == EINTR)) {
        TRY(wait_for_program(POLLIN));
        continue;
      }
      // Its end, or it was killed with something unread.
      if (count <= 0) return write(wire::frame_of(Kind::tunnel_end, {}));
      const auto taken = body.first(static_cast<std::size_t>(count));
      wire::encode(wire::header_for(Kind::tunnel_data, taken), frame.data());
      const auto whole = std::span(frame).first(wire::kHeaderBytes + taken.size());
      TRY(common_.throttle.take(whole.size(), *common_.failure));
      TRY(write(whole));
    }
  }

  Status write(std::span<const std::byte> frame) {
    TRY(connection_->write(frame));
    common_.sent += frame.size();
    return {};
  }

  // What the other side sends, to the program.
  Status take() {
    for (bool ended = false, closed = false; !ended || !closed;) {
      TRY(common_.failure->status());  // data that never ends must not hide it
      TRY_ASSIGN(const Frame frame, connection_->read(kForever));
      common_.received += wire::kHeaderBytes + frame.body.size();
      const Kind kind = frame.header.kind;
      if (kind == Kind::tunnel_data && !ended) {
        TRY(give(frame.body));
      } else if (kind == Kind::tunnel_end && !ended) {
        ended = true;
        ::shutdown(program_.get(), SHUT_WR);
        TRY(take_no_more());
      } else if (kind == Kind::tunnel_closed && !closed) {
        closed = true;
        ::shutdown(program_.get(), SHUT_RD);  // who writes on finds that out, and send() the end
      } else {
        return Error{Code::corrupt, "The other host said something that has no place in a tunnel."};
      }
    }
    return {};
  }

  Status give(wire::Bytes bytes) {
    while (!bytes.empty() && !took_all_) {
      const ssize_t count = ::send(program_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (count >= 0) {
        bytes = bytes.subspan(static_cast<std::size_t>(count));
      } else if (errno == EAGAIN || errno == EINTR) {
        TRY(wait_for_program(POLLOUT));
      } else {
        TRY(take_no_more());  // the program has gone
      }
    }
    return {};
  }

  Status take_no_more() {
    if (std::exchange(took_all_, true)) return {};
    return write(wire::frame_of(Kind::tunnel_closed, {}));
  }

  const UniqueFd program_;
  const std::unique_ptr<Connection> connection_;
  const std::string channel_;
  Common& common_;
  bool took_all_ = false;  // of the thread that takes: tunnel_closed was sent
  std::atomic<int> running_{2};
  std::thread out_, in_;  // last: they use all of the above
};

// The streams of one side. One thread adds.
class Streams {
 public:
  Streams(std::shared_ptr<Failure> failure, std::uint64_t bytes_per_second)
      : common_(std::move(failure), bytes_per_second) {}

  bool has_room() {
    streams_.remove_if([](const Stream& stream) { return stream.has_ended(); });
    return streams_.size() < kTunnelStreamsMax;
  }
  void add(UniqueFd program, std::unique_ptr<Connection> connection, const std::string& channel) {
    const unsigned number = count_++;
    streams_.emplace_back(std::move(program), std::move(connection), channel, common_, number);
  }
  Failure& failure() { return *common_.failure; }
  void limit(std::uint64_t bytes_per_second) { common_.throttle.limit(bytes_per_second); }
  TunnelTraffic traffic() const { return {common_.sent, common_.received, count_}; }

 private:
  Common common_;
  std::atomic<unsigned> count_{0};
  std::list<Stream> streams_;
};

const Error kEnded{Code::failed, "The motion has ended."};

class Entrance final : public TunnelEntrance {
 public:
  Entrance(std::string endpoint, TunnelOptions options, std::shared_ptr<Failure> failure)
      : endpoint_(std::move(endpoint)),
        options_(std::move(options)),
        opened_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
        streams_(std::move(failure), options_.bytes_per_second) {
    ENSURE(static_cast<bool>(opened_), "a tunnel needs one descriptor");
    thread_ = std::thread([this] { accept_all(); });
  }
  ~Entrance() override {
    streams_.failure().set(kEnded);
    thread_.join();
    for (const Door& door : doors_) ::unlink(door.path.c_str());
  }

  Status open(const std::string& channel, const std::string& path) override {
    ENSURE(!channel.empty() && channel.size() <= wire::kChannelMax, "a channel has a short name");
    TRY_ASSIGN(UniqueFd listening, qemu::listen_unix(path));
    const std::scoped_lock lock(mutex_);
    doors_.push_back({channel, path, std::move(listening)});
    ENSURE(::eventfd_write(opened_.get(), 1) == 0, "it is read at once");
    return {};
  }

  TunnelTraffic traffic() const override { return streams_.traffic(); }
  void limit(std::uint64_t bytes_per_second) override { streams_.limit(bytes_per_second); }

 private:
  struct Door {
    std::string channel, path;
    UniqueFd listening;
  };

  void accept_all() {
    name_thread("hf-tunnel");
    for (;;) {
      std::vector<pollfd> waiting = {{streams_.failure().descriptor(), POLLIN, 0}, {opened_.get(), POLLIN, 0}};
      std::vector<std::string> channels = {"", ""};
      {
        const std::scoped_lock lock(mutex_);
        for (const Door& door : doors_) {
          waiting.push_back({door.listening.get(), POLLIN, 0});
          channels.push_back(door.channel);
        }
      }
      if (::poll(waiting.data(), waiting.size(), -1) < 0) continue;
      if (waiting[0].revents != 0) return;
      eventfd_t count = 0;
      (void)::eventfd_read(opened_.get(), &count);  // nothing there: nothing new
      for (std::size_t at = 2; at < waiting.size(); ++at) {
        if (waiting[at].revents != 0) accept_one(waiting[at].fd, channels[at]);
      }
    }
  }

  void accept_one(int listening, const std::string& channel) {
    UniqueFd program(::accept4(listening, nullptr, nullptr, SOCK_CLOEXEC));
    if (!program) return;
    if (!streams_.has_room()) {
      log(Level::warn, "a tunnel has no room for another stream", {{"channel", channel}});
      return;
    }
    auto connection =
        connect_tunnel(endpoint_, options_.connection, options_.encrypted, channel, streams_.failure());
    if (connection.ok()) return streams_.add(std::move(program), std::move(connection).value(), channel);
    streams_.failure().set({connection.code(), "Channel " + channel + ": " + connection.error().what});
  }

  const std::string endpoint_;
  const TunnelOptions options_;
  const UniqueFd opened_;
  std::mutex mutex_;  // of the doors
  std::vector<Door> doors_;
  Streams streams_;
  std::thread thread_;  // last: it uses all of the above
};

class Exit final : public TunnelExit {
 public:
  Exit(Listener listener, TunnelOptions options, std::map<std::string, std::string> channels,
       std::shared_ptr<Failure> failure)
      : listener_(std::move(listener)),
        options_(std::move(options)),
        channels_(std::move(channels)),
        streams_(std::move(failure), options_.bytes_per_second) {
    thread_ = std::thread([this] { accept_all(); });
  }
  ~Exit() override {
    streams_.failure().set(kEnded);
    thread_.join();
  }

  TunnelTraffic traffic() const override { return streams_.traffic(); }
  void limit(std::uint64_t bytes_per_second) override { streams_.limit(bytes_per_second); }

 private:
  void accept_all() {
    name_thread("hf-tunnel");
    for (;;) {
      UniqueFd program;
      std::string channel;
      auto connection = listener_.accept_tunnel(
          options_.connection, options_.encrypted,
          [&](const std::string& name) -> Status {
            TRY_ASSIGN(program, join(name));
            channel = name;
            return {};
          },
          streams_.failure());
      if (!connection.ok()) {
        streams_.failure().set(connection.error());  // it is that one, or there is no certificate
        return;
      }
      streams_.add(std::move(program), std::move(connection).value(), channel);
    }
  }

  Result<UniqueFd> join(const std::string& channel) {
    const auto found = channels_.find(channel);
    if (found == channels_.end()) return Error{Code::invalid, "This motion has no channel of that name."};
    if (!streams_.has_room()) return Error{Code::conflict, "There are too many streams already."};
    return qemu::connect_unix(found->second);
  }

  Listener listener_;
  const TunnelOptions options_;
  const std::map<std::string, std::string> channels_;
  Streams streams_;
  std::thread thread_;  // last: it uses all of the above
};
}  // namespace

std::unique_ptr<TunnelEntrance> TunnelEntrance::start(std::string endpoint, TunnelOptions options,
                                                      std::shared_ptr<Failure> failure) {
  return std::make_unique<Entrance>(std::move(endpoint), std::move(options), std::move(failure));
}

std::unique_ptr<TunnelExit> TunnelExit::start(Listener listener, TunnelOptions options,
                                              std::map<std::string, std::string> channels,
                                              std::shared_ptr<Failure> failure) {
  return std::make_unique<Exit>(std::move(listener), std::move(options), std::move(channels), std::move(failure));
}

}  // namespace hf::engine
