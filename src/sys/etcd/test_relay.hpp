#pragma once
// A TCP relay on loopback for tests: passes bytes between clients and one server, or holds, refuses or cuts
// them. Owns one thread; the test sets the mode from its own.
#include <poll.h>

#include <atomic>
#include <mutex>
#include <thread>

#include "sys/etcd/test_cluster.hpp"

namespace hf::etcd::test {

class Relay {
 public:
  enum class Mode { pass, hold, refuse };
  enum class Cut { none, before, after };  // the bytes with the mark have been passed on

  explicit Relay(const std::string& server_address)
      : server_port_(std::stoi(server_address.substr(server_address.find(':') + 1))) {
    const sockaddr_in any = loopback(0);
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (::bind(listener_, reinterpret_cast<const sockaddr*>(&any), sizeof any) != 0 ||
        ::listen(listener_, 64) != 0)
      std::abort();
    sockaddr_in bound{};
    socklen_t size = sizeof bound;
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&bound), &size);
    port_ = ntohs(bound.sin_port);
    thread_ = std::thread([this] { run(); });
  }
  ~Relay() {
    ending_ = true;
    thread_.join();
    for (auto& pair : pairs_) close_both(pair);
    ::close(listener_);
  }
  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;

  std::string address() const { return at_port(port_); }
  void set(Mode mode) { mode_ = mode; }
  // The client's connection is cut at its next bytes that contain `mark`; the server's stays open.
  void cut_at(const std::string& mark, Cut cut) {
    std::lock_guard lock(mutex_);
    mark_ = mark;
    cut_ = cut;
  }

 private:
  struct Pair {
    int client, server;
  };
  static void close_both(Pair& pair) {
    if (pair.client >= 0) ::close(pair.client);
    if (pair.server >= 0) ::close(pair.server);
    pair = {-1, -1};
  }
  static void send_all(int fd, const char* data, std::size_t size) {
    while (size > 0) {
      const ssize_t sent = ::send(fd, data, size, MSG_NOSIGNAL);
      if (sent <= 0) return;
      data += sent;
      size -= static_cast<std::size_t>(sent);
    }
  }
  void run() {
    while (!ending_) {
      const Mode mode = mode_;
      if (mode == Mode::refuse)
        for (auto& pair : pairs_) close_both(pair);
      std::vector<pollfd> waits = {{listener_, POLLIN, 0}};
      for (const auto& pair : pairs_) {
        const short wanted = mode == Mode::hold ? 0 : POLLIN;
        waits.push_back({mode == Mode::hold ? -1 : pair.client, wanted, 0});
        waits.push_back({mode == Mode::hold ? -1 : pair.server, wanted, 0});
      }
      if (::poll(waits.data(), waits.size(), 20) <= 0) continue;
      const std::size_t count = pairs_.size();
      for (std::size_t i = 0; i < count; ++i) {
        if (waits[1 + 2 * i].revents != 0) from_client(pairs_[i]);
        if (waits[2 + 2 * i].revents != 0) from_server(pairs_[i]);
      }
      if (waits[0].revents != 0) accept_one(mode);
    }
  }
  void accept_one(Mode mode) {
    Pair pair{::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC), -1};
    if (mode == Mode::refuse) return close_both(pair);
    pair.server = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_in server = loopback(server_port_);
    if (::connect(pair.server, reinterpret_cast<const sockaddr*>(&server), sizeof server) != 0)
      return close_both(pair);
    pairs_.push_back(pair);
  }
  void from_client(Pair& pair) {
    if (pair.client < 0) return;
    std::array<char, 65536> buffer{};
    const ssize_t got = ::recv(pair.client, buffer.data(), buffer.size(), 0);
    if (got <= 0) return close_both(pair);
    const std::string bytes(buffer.data(), static_cast<std::size_t>(got));
    std::lock_guard lock(mutex_);
    const bool marked = cut_ != Cut::none && bytes.find(mark_) != std::string::npos;
    if (!marked || cut_ == Cut::after) send_all(pair.server, bytes.data(), bytes.size());
    if (!marked) return;
    ::close(pair.client);
    pair.client = -1;
    cut_ = Cut::none;
  }
  void from_server(Pair& pair) {
    if (pair.server < 0) return;
    std::array<char, 65536> buffer{};
    const ssize_t got = ::recv(pair.server, buffer.data(), buffer.size(), 0);
    if (got <= 0) return close_both(pair);
    if (pair.client >= 0) send_all(pair.client, buffer.data(), static_cast<std::size_t>(got));
  }

  int server_port_;
  int listener_ = -1;
  int port_ = 0;
  std::vector<Pair> pairs_;  // of the thread
  std::atomic<Mode> mode_{Mode::pass};
  std::atomic<bool> ending_{false};
  std::mutex mutex_;
  std::string mark_;
  Cut cut_ = Cut::none;
  std::thread thread_;
};

}  // namespace hf::etcd::test
