#pragma once
// Client: talks to the hosts of a cluster over HTTPS with a certificate of its CA. Tries the next endpoint
// when one is down. Not thread-safe: one Client a thread.
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "api/handler.hpp"
#include "base/result.hpp"
#include "base/time.hpp"
#include "sys/pki/pki.hpp"

namespace hf::api {

struct ClientOptions {
  std::vector<std::string> endpoints;
  pki::Credentials credentials;
  std::string expected_host;  // the host that must answer; empty: any host of the cluster
  Duration timeout = 15s;     // of one exchange
};

class Client {
 public:
  explicit Client(ClientOptions options);
  ~Client();
  Client(Client&&) noexcept;

  // The JSON text of a success; else the host's error. A request that may have arrived while its reply was
  // lost is sent again only if it is a GET or has an idempotency key; otherwise Code::outcome_unknown.
  // unavailable: no endpoint could be reached, and why. denied: the hosts refuse this certificate.
  Result<std::string> call(const std::string& method, const std::string& path, const std::string& body = "",
                           const std::string& idempotency_key = "");
  // GETs a stream until it ends, `take` returns false, or cancel(). `opened`, if given, is called once it has
  // begun.
  Status stream(const Request& request, const std::function<bool(std::string_view)>& take,
                const std::function<void()>& opened = nullptr);
  // Ends stream() in another thread; the only member that may be called from one.
  void cancel();
  // One exchange with the first endpoint, as a Response of any status.
  Result<Response> exchange(const Request& request);

 private:
  struct Inner;
  std::unique_ptr<Inner> inner_;
};

// Peers over HTTPS with the host's own certificate. Thread-safe.
class HttpPeers : public Peers {
 public:
  explicit HttpPeers(pki::Credentials credentials) : credentials_(std::move(credentials)) {}
  Result<Response> forward(const HostId& host, const std::string& address, const Request& request) override;

 private:
  const pki::Credentials credentials_;
};

// A path segment or query value with what would be misread escaped.
std::string escape(const std::string& text);

}  // namespace hf::api
