#include "sys/net/heartbeat.hpp"

#include <arpa/inet.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <charconv>
#include <cstring>
#include <mutex>
#include <thread>

#include "sys/process/clock.hpp"

namespace hf::net {
namespace {

constexpr std::string_view kMagic = "HFHB\x01";
constexpr std::size_t kMacBytes = 32;
constexpr std::size_t kHostMax = 64;
constexpr std::size_t kDatagramMax = 512;

std::string mac_of(std::string_view body, const HeartbeatKey& key) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> mac{};
  unsigned int length = 0;
  HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), reinterpret_cast<const unsigned char*>(body.data()),
       body.size(), mac.data(), &length);
  return std::string(reinterpret_cast<const char*>(mac.data()), kMacBytes);
}

Result<sockaddr_in> parse_endpoint(const std::string& address) {
  TRY_ASSIGN(auto parts, split_address(address));
  sockaddr_in endpoint{};
  endpoint.sin_family = AF_INET;
  endpoint.sin_port = htons(parts.second);
  if (inet_pton(AF_INET, parts.first.c_str(), &endpoint.sin_addr) != 1) {
    return Error{Code::invalid, "\"" + parts.first + "\" is not an IPv4 address."};
  }
  return endpoint;
}

class RealSocket : public HeartbeatSocket {
 public:
  RealSocket(int fd, int stop, HostId self, HeartbeatKey key, std::function<void(const HostId&)> heard)
      : fd_(fd), stop_(stop), self_(std::move(self)), key_(std::move(key)), heard_(std::move(heard)),
        // Grows over restarts of the daemon too.
        counter_(static_cast<std::uint64_t>(sys::wall_ms())), thread_([this] { receive(); }) {}

  ~RealSocket() override {
    const std::uint64_t one = 1;
    [[maybe_unused]] auto written = ::write(stop_, &one, sizeof one);  // an eventfd takes it
    thread_.join();
    ::close(fd_);
    ::close(stop_);
  }

  void send_to(const std::vector<std::string>& addresses) override {
    const std::string datagram = encode_heartbeat({self_, ++counter_}, key_);
    for (const auto& address : addresses) {
      auto endpoint = parse_endpoint(address);
      if (!endpoint.ok()) continue;
      ::sendto(fd_, datagram.data(), datagram.size(), MSG_DONTWAIT, reinterpret_cast<const sockaddr*>(&*endpoint),
               sizeof(sockaddr_in));
    }
  }

 private:
  void receive() {
    std::map<HostId, std::uint64_t> last;
    std::array<pollfd, 2> waits = {pollfd{fd_, POLLIN, 0}, pollfd{stop_, POLLIN, 0}};
    for (;;) {
      if (::poll(waits.data(), waits.size(), -1) < 0) continue;
      if (waits[1].revents != 0) return;
      std::array<char, kDatagramMax> buffer{};
      const ssize_t got = ::recv(fd_, buffer.data(), buffer.size(), MSG_DONTWAIT);
      if (got <= 0) continue;
      auto heartbeat = decode_heartbeat(std::string(buffer.data(), static_cast<std::size_t>(got)), key_);
      if (!heartbeat.ok() || heartbeat->from == self_ || heartbeat->counter <= last[heartbeat->from]) continue;
      last[heartbeat->from] = heartbeat->counter;
      heard_(heartbeat->from);
    }
  }

  const int fd_, stop_;
  const HostId self_;
  const HeartbeatKey key_;
  const std::function<void(const HostId&)> heard_;
  std::atomic<std::uint64_t> counter_;
  std::thread thread_;
};

}  // namespace

Result<std::pair<std::string, std::uint16_t>> split_address(const std::string& address) {
  const auto colon = address.rfind(':');
  std::uint16_t port = 0;
  if (colon != std::string::npos && colon > 0) {
    const char* begin = address.data() + colon + 1;
    const char* end = address.data() + address.size();
    auto [stop, error] = std::from_chars(begin, end, port);
    if (error == std::errc() && stop == end && port != 0) return std::pair(address.substr(0, colon), port);
  }
  return Error{Code::invalid, "\"" + address + "\" is not ADDRESS:PORT."};
}

std::string encode_heartbeat(const Heartbeat& heartbeat, const HeartbeatKey& key) {
  std::string body(kMagic);
  for (int shift = 0; shift < 64; shift += 8) body += static_cast<char>((heartbeat.counter >> shift) & 0xff);
  body += heartbeat.from.text;
  return body + mac_of(body, key);
}

Result<Heartbeat> decode_heartbeat(const std::string& datagram, const HeartbeatKey& key) {
  const Error corrupt{Code::corrupt, "The datagram is not a heartbeat of this cluster."};
  const std::size_t fixed = kMagic.size() + 8 + kMacBytes;
  if (datagram.size() <= fixed || datagram.size() > fixed + kHostMax) return corrupt;
  const std::string body = datagram.substr(0, datagram.size() - kMacBytes);
  if (body.compare(0, kMagic.size(), kMagic) != 0) return corrupt;
  const std::string mac = mac_of(body, key);
  if (CRYPTO_memcmp(mac.data(), datagram.data() + body.size(), kMacBytes) != 0) return corrupt;
  Heartbeat heartbeat;
  for (std::size_t i = 0; i < 8; ++i) {
    heartbeat.counter |= static_cast<std::uint64_t>(static_cast<unsigned char>(body[kMagic.size() + i])) << (8 * i);
  }
  heartbeat.from = HostId(body.substr(kMagic.size() + 8));
  return heartbeat;
}

Result<std::unique_ptr<HeartbeatSocket>> HeartbeatSocket::open(const std::string& listen_address, HostId self,
                                                               HeartbeatKey key,
                                                               std::function<void(const HostId&)> heard) {
  TRY_ASSIGN(sockaddr_in endpoint, parse_endpoint(listen_address));
  const int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return from_errno("Cannot make a UDP socket", errno);
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&endpoint), sizeof endpoint) != 0) {
    const Error error = from_errno("Cannot listen for heartbeats on " + listen_address, errno);
    ::close(fd);
    return error;
  }
  const int stop = ::eventfd(0, EFD_CLOEXEC);
  if (stop < 0) {
    ::close(fd);
    return from_errno("Cannot make an eventfd", errno);
  }
  return std::unique_ptr<HeartbeatSocket>(
      std::make_unique<RealSocket>(fd, stop, std::move(self), std::move(key), std::move(heard)));
}

}  // namespace hf::net
