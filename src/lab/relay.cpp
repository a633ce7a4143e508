#include "lab/relay.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <list>
#include <memory>
#include <thread>

#include "base/log.hpp"
#include "lab/files.hpp"

namespace hf::lab {
namespace {

constexpr int kPortsTried = 200;
constexpr timeval kConnectTimeout{.tv_sec = 3, .tv_usec = 0};

sockaddr_in address_of(const std::string& ip, int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  ::inet_pton(AF_INET, ip.c_str(), &address.sin_addr);
  return address;
}

// -1 with errno.
int listen_on(int port) {
  Fd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int yes = 1;
  ::setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  const sockaddr_in address = address_of("127.0.0.1", port);
  if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) return -1;
  if (::listen(listener.get(), 64) != 0) return -1;
  return listener.release();
}

void pump(const Fd& from, const Fd& to) {
  std::array<char, 65536> part{};
  for (;;) {
    const ssize_t count = ::recv(from.get(), part.data(), part.size(), 0);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    for (ssize_t sent = 0; sent < count;) {
      const ssize_t more =
          ::send(to.get(), part.data() + sent, static_cast<std::size_t>(count - sent), MSG_NOSIGNAL);
      if (more <= 0) {
        ::shutdown(from.get(), SHUT_RD);
        ::shutdown(to.get(), SHUT_RDWR);
        return;
      }
      sent += more;
    }
  }
  ::shutdown(to.get(), SHUT_WR);
}

// In a thread of its own, which is in the host's network namespace.
void serve(Fd near, const std::string& ip) {
  Fd far(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ::setsockopt(far.get(), SOL_SOCKET, SO_SNDTIMEO, &kConnectTimeout, sizeof(kConnectTimeout));
  const sockaddr_in address = address_of(ip, kApiPort);
  if (::connect(far.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) return;
  const timeval forever{};
  const int yes = 1;
  ::setsockopt(far.get(), SOL_SOCKET, SO_SNDTIMEO, &forever, sizeof(forever));
  ::setsockopt(far.get(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
  ::setsockopt(near.get(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
  std::thread back([&] { pump(far, near); });
  pump(near, far);
  back.join();
}

struct Connection {
  std::unique_ptr<std::atomic<bool>> over = std::make_unique<std::atomic<bool>>(false);
  std::thread thread;
};

void join_those_over(std::list<Connection>& connections) {
  connections.remove_if([](Connection& connection) {
    if (!connection.over->load()) return false;
    connection.thread.join();
    return true;
  });
}

// A thread's network namespace is its own and is inherited by the threads it starts.
void accept_for_host(const Layout& layout, int index, int listener) {
  const std::string path = Layout::net_file(layout.net_name(host_name(index)));
  const Fd space(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!space || ::setns(space.get(), CLONE_NEWNET) != 0) {
    log(Level::error, "relay without a host",
        {{"host", host_name(index)}, {"why", from_errno(path, errno).what}});
    return;
  }
  std::list<Connection> connections;
  for (;;) {
    Fd near(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
    join_those_over(connections);
    if (near) {
      Connection& one = connections.emplace_back();
      one.thread = std::thread([near = std::move(near), index, &over = *one.over]() mutable {
        serve(std::move(near), mgmt_address(index));
        over = true;
      });
    } else if (errno == EMFILE || errno == ENFILE) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));  // until a connection ends
    }
  }
}

}  // namespace

Result<std::vector<int>> relay_listeners(LabConfig& config) {
  std::vector<int> listeners;
  std::vector<int> ports;
  int next = kApiPort + 1;
  for (int index = 1; index <= config.hosts; ++index) {
    if (!config.api_ports.empty()) next = config.api_ports.at(static_cast<std::size_t>(index - 1));
    int listener = -1;
    for (int tried = 0; listener < 0 && tried < kPortsTried; ++tried, ++next) listener = listen_on(next);
    if (listener < 0) {
      for (const int open : listeners) ::close(open);
      return Error{Code::no_room, fmt::format("No port on 127.0.0.1 from {} to {} is free for the API of {}.",
                                              next - kPortsTried, next - 1, host_name(index))};
    }
    listeners.push_back(listener);
    ports.push_back(next - 1);
  }
  config.api_ports = ports;
  return listeners;
}

Status run_relay(const Layout& layout, const std::vector<int>& listeners) {
  std::signal(SIGPIPE, SIG_IGN);
  std::vector<std::thread> threads;
  for (std::size_t number = 0; number < listeners.size(); ++number) {
    threads.emplace_back(accept_for_host, layout, static_cast<int>(number) + 1, listeners[number]);
  }
  for (auto& thread : threads) thread.join();
  return Error{Code::failed, "The relay has no host left."};
}

}  // namespace hf::lab
