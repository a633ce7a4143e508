#pragma once
// Relay: a link between two hosts that a test can hurt at a chosen frame. It knows where frames begin, so it is for
// plain connections only.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <atomic>
#include <list>
#include <mutex>
#include <thread>

#include "base/ensure.hpp"
#include "engine/wire/message.hpp"
#include "sys/process/unique_fd.hpp"

namespace hf::engine::test {

struct Fault {
  enum class Kind { none, cut_before, cut_within, corrupt, stall };
  Kind kind = Kind::none;
  unsigned connection = 0;  // in the order in which they were made
  bool to_source = false;   // else to the destination
  std::uint64_t frame = 0;  // of this connection and direction; keep-alives do not count; 0: the greeting
};

class Relay {
 public:
  Relay(const std::string& destination, Fault fault) : fault_(fault) {
    const std::size_t colon = destination.rfind(':');
    port_ = static_cast<std::uint16_t>(std::stoi(destination.substr(colon + 1)));
    listener_.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    ENSURE(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), size) == 0 &&
               ::listen(listener_.get(), 16) == 0 &&
               ::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0,
           "a loopback port can be had");
    endpoint_ = fmt::format("127.0.0.1:{}", ntohs(address.sin_port));
    thread_ = std::thread([this] { accept_all(); });
  }
  ~Relay() {
    ::shutdown(listener_.get(), SHUT_RDWR);
    thread_.join();
    for (Pair& pair : pairs_) pair.cut();
    for (Pair& pair : pairs_) {
      pair.forth.join();
      pair.back.join();
    }
  }
  const std::string& endpoint() const { return endpoint_; }
  // Did the fault happen?
  bool hit() const { return hit_; }

 private:
  struct Pair {
    process::UniqueFd source, destination;
    std::thread forth, back;
    void cut() const {
      ::shutdown(source.get(), SHUT_RDWR);
      ::shutdown(destination.get(), SHUT_RDWR);
    }
  };

  static sockaddr_in loopback(std::uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
  }

  void accept_all() {
    for (unsigned index = 0;; ++index) {
      process::UniqueFd source(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!source) return;
      Pair& pair = pairs_.emplace_back();
      pair.source = std::move(source);
      pair.destination.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
      const sockaddr_in address = loopback(port_);
      if (::connect(pair.destination.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        pair.cut();
      pair.forth = std::thread([this, &pair, index] { pump(pair, index, false); });
      pair.back = std::thread([this, &pair, index] { pump(pair, index, true); });
    }
  }

  static bool read_all(int socket, std::byte* to, std::size_t count) {
    return count == 0 || ::recv(socket, to, count, MSG_WAITALL) == static_cast<ssize_t>(count);
  }

  // One message of the stream, the greeting first; empty at its end.
  static std::vector<std::byte> take(int from, bool is_greeting) {
    std::vector<std::byte> bytes(is_greeting ? wire::kGreetingBytes : wire::kHeaderBytes);
    if (!read_all(from, bytes.data(), bytes.size())) return {};
    if (is_greeting) return bytes;
    const auto header = wire::decode_header(std::span<const std::byte>(bytes).first<wire::kHeaderBytes>());
    if (!header.ok()) return {};
    bytes.resize(wire::kHeaderBytes + header->bytes);
    return read_all(from, bytes.data() + wire::kHeaderBytes, header->bytes) ? bytes
                                                                            : std::vector<std::byte>();
  }

  void pump(Pair& pair, unsigned index, bool to_source) {
    const int from = to_source ? pair.destination.get() : pair.source.get();
    const int to = to_source ? pair.source.get() : pair.destination.get();
    std::uint64_t frame = 0;
    for (bool is_first = true;; is_first = false) {
      std::vector<std::byte> bytes = take(from, is_first);
      if (bytes.empty()) break;
      const bool counts = is_first || static_cast<wire::Kind>(bytes[4]) != wire::Kind::keep_alive;
      const bool is_it =
          counts && fault_.connection == index && fault_.to_source == to_source && fault_.frame == frame;
      if (counts) ++frame;
      if (is_it && fault_.kind != Fault::Kind::none) {
        hit_ = true;
        if (fault_.kind == Fault::Kind::cut_before) break;
        if (fault_.kind == Fault::Kind::cut_within) bytes.resize(bytes.size() / 2);
        if (fault_.kind == Fault::Kind::corrupt) bytes[bytes.size() / 2] ^= std::byte{0x10};
        if (fault_.kind == Fault::Kind::stall) {
          while (::recv(from, bytes.data(), bytes.size(), 0) > 0) continue;  // swallows the rest
          break;
        }
      }
      if (::send(to, bytes.data(), bytes.size(), MSG_NOSIGNAL) < 0 ||
          (is_it && fault_.kind == Fault::Kind::cut_within))
        break;
    }
    pair.cut();
  }

  const Fault fault_;
  std::uint16_t port_ = 0;
  process::UniqueFd listener_;
  std::string endpoint_;
  std::list<Pair> pairs_;  // the accepting thread's until it has ended
  std::atomic<bool> hit_{false};
  std::thread thread_;
};

}  // namespace hf::engine::test
