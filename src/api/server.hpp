#pragma once
// Server: the Handler over HTTPS. TLS 1.3, client certificates of the cluster's CA required; nobody else sees
// a byte of HTTP. Limits: body 4 MiB, 8 KiB a header line, 10 s for a client to send or take, 32 threads, 16
// streams. Threads of its own; start() and stop() from one thread.
#include <cstdint>
#include <memory>
#include <string>

#include "api/handler.hpp"
#include "base/result.hpp"
#include "sys/pki/pki.hpp"

namespace hf::api {

inline constexpr std::size_t kBodyBytesMax = 4U << 20U;

class Server {
 public:
  // `handler` must outlive this.
  Server(Handler& handler, pki::Credentials credentials);
  ~Server();  // stops
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // "10.0.0.1:7443", "[::1]:0"; port 0: a free one. Returns when connections are accepted.
  Status start(const std::string& address);
  int port() const;
  // Ends open streams; returns when every thread has ended.
  void stop();

 private:
  struct Inner;
  std::unique_ptr<Inner> inner_;
};

// "host:port" or "https://host:port", "[v6]:port". Code::invalid if it is neither.
struct Endpoint {
  std::string host;
  int port = 0;
};
Result<Endpoint> parse_endpoint(const std::string& text);
inline constexpr int kDefaultPort = 7443;

}  // namespace hf::api
