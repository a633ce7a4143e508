#include "api/client.hpp"

#include <httplib.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "api/server.hpp"
#include "sys/pki/openssl.hpp"
#include "sys/pki/tls.hpp"

namespace hf::api {
namespace {
constexpr auto kConnectTimeout = std::chrono::seconds(3);
constexpr std::size_t kQueuedBytesMax = 1U << 20U;

// Did the request certainly not reach the other side?
bool not_sent(httplib::Error error) {
  return error == httplib::Error::Connection || error == httplib::Error::BindIPAddress ||
         error == httplib::Error::SSLConnection || error == httplib::Error::SSLLoadingCerts ||
         error == httplib::Error::SSLServerVerification;
}

Result<std::unique_ptr<httplib::SSLClient>> connect(const std::string& address,
                                                    const ClientOptions& options) {
  TRY_ASSIGN(const Endpoint endpoint, parse_endpoint(address));
  auto client = std::make_unique<httplib::SSLClient>(endpoint.host, endpoint.port);
  // Our own check, within the handshake, takes the place of the one by host name.
  client->enable_server_certificate_verification(false);
  TRY(tls::configure(client->ssl_context(), options.credentials, tls::Side::client));
  tls::expect_host(client->ssl_context(), &options.expected_host);
  client->set_connection_timeout(kConnectTimeout);
  client->set_read_timeout(options.timeout);
  client->set_write_timeout(options.timeout);
  client->set_tcp_nodelay(true);
  client->set_url_encode(false);
  return client;
}

httplib::Request http_of(const Request& in) {
  httplib::Request out;
  out.method = in.method;
  out.path = in.path;
  for (const auto& [name, value] : in.query) {
    out.path += (out.path.find('?') == std::string::npos ? '?' : '&') + name + "=" + escape(value);
  }
  out.body = in.body;
  out.headers = {{"Accept-Encoding", "identity"}, {"Content-Type", "application/json"}};
  if (!in.idempotency_key.empty()) out.headers.emplace("Idempotency-Key", in.idempotency_key);
  if (!in.last_event_id.empty()) out.headers.emplace("Last-Event-ID", in.last_event_id);
  if (!in.requested_by.empty()) out.headers.emplace("Holdfast-Requested-By", in.requested_by);
  if (in.forwarded) out.headers.emplace("Holdfast-Forwarded", "1");
  return out;
}

Error error_of(const Response& response) {
  const auto j = nlohmann::json::parse(response.body, nullptr, false);
  if (j.is_object() && j.contains("error") && j["error"].is_object()) {
    return {code_named(j["error"].value("code", "")),
            j["error"].value("message", "The host gave no reason.")};
  }
  return {code_of_http(response.status),
          "The host answered with HTTP status " + std::to_string(response.status) + "."};
}

void forget_alerts() {
  (void)tls::take_alert();      // an earlier connection's
  (void)tls::take_own_alert();  // the same
}

// Does the server at this address refuse the certificate? A request that was sent at once may have hidden the alert,
// so this connects anew, sends nothing and waits up to a second for it. The alert's text; empty: it does not.
std::string probe_refusal(SSL_CTX* context, const std::string& address) {
  const auto endpoint = parse_endpoint(address);
  if (!endpoint.ok()) return "";
  const std::unique_ptr<BIO, pki::Deleter<BIO_free_all>> connection(BIO_new_ssl_connect(context));
  const bool v6 = endpoint->host.find(':') != std::string::npos;
  const std::string host = v6 ? "[" + endpoint->host + "]" : endpoint->host;
  BIO_set_conn_hostname(connection.get(), (host + ":" + std::to_string(endpoint->port)).c_str());
  (void)tls::take_alert();  // of an earlier connection
  if (BIO_do_connect(connection.get()) != 1) return tls::take_alert();
  int socket = -1;
  BIO_get_fd(connection.get(), &socket);
  const timeval patience{1, 0};
  ::setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  char byte = 0;
  BIO_read(connection.get(), &byte, 1);
  return tls::take_alert();
}

Error failure(httplib::SSLClient& client, httplib::Error error, const std::string& address) {
  const bool refused_it = tls::take_own_alert();
  std::string alert = tls::take_alert();
  if (alert.empty() && !not_sent(error)) alert = probe_refusal(client.ssl_context(), address);
  if (!alert.empty()) {
    return {Code::denied,
            "Host " + address + " refuses this certificate (" + alert + "): is it of this cluster?"};
  }
  const bool handshake_failed = error == httplib::Error::SSLConnection;
  if ((handshake_failed && refused_it) || error == httplib::Error::SSLServerVerification) {
    return {Code::denied, "What answers at " + address + " is not the expected host of this cluster."};
  }
  // Taken and closed again: a relay or a balancer stands before a host that is off.
  if (handshake_failed) {
    return {Code::unavailable, "Host " + address + " does not answer: is it up, and its holdfastd?"};
  }
  if (not_sent(error)) return {Code::unavailable, "Host " + address + " cannot be reached."};
  return {Code::outcome_unknown, "The connection to " + address + " broke before the answer came."};
}
}  // namespace

struct Client::Inner {
  ClientOptions options;
  std::size_t current = 0;  // the endpoint that answered last
  std::mutex mutex;         // of the two below
  httplib::SSLClient* streaming = nullptr;
  bool cancelled = false;

  explicit Inner(ClientOptions some_options) : options(std::move(some_options)) {}

  const std::string& address() const { return options.endpoints[current % options.endpoints.size()]; }

  Status stream_once(const Request& request, const std::function<bool(std::string_view)>& take,
                     const std::function<void()>& opened);

  Result<Response> once(const Request& request) {
    TRY_ASSIGN(const auto client, connect(address(), options));
    forget_alerts();
    const auto result = client->send(http_of(request));
    if (!result) return failure(*client, result.error(), address());
    return Response{result->status, result->get_header_value("Content-Type"), result->body, nullptr};
  }
};

Client::Client(ClientOptions options) : inner_(std::make_unique<Inner>(std::move(options))) {}
Client::~Client() = default;
Client::Client(Client&&) noexcept = default;

Result<Response> Client::exchange(const Request& request) {
  if (inner_->options.endpoints.empty()) return Error{Code::invalid, "No host to talk to is known."};
  return inner_->once(request);
}

Result<std::string> Client::call(const std::string& method, const std::string& path, const std::string& body,
                                 const std::string& idempotency_key) {
  Request request;
  request.method = method;
  request.path = path;
  request.body = body;
  request.idempotency_key = idempotency_key;
  const bool repeatable = method == "GET" || !idempotency_key.empty();
  Error last{Code::invalid, "No host to talk to is known: use --host, --context or HOLDFAST_API."};
  bool unknown = false;
  for (std::size_t i = 0; i < inner_->options.endpoints.size(); ++i, ++inner_->current) {
    const auto response = inner_->once(request);
    if (response.ok() && response->status < 400) return response->body;
    const Error problem = response.ok() ? error_of(*response) : response.error();
    const bool lost = problem.code == Code::outcome_unknown;
    const bool try_next = problem.code == Code::unavailable || (lost && repeatable) ||
                          (!response.ok() && problem.code == Code::denied);
    if (!try_next) return problem;
    unknown = unknown || lost;
    last = i == 0 ? problem : Error{problem.code, last.what + " " + problem.what};
  }
  if (unknown && method != "GET") last.code = Code::outcome_unknown;
  if (unknown && method == "GET") last.code = Code::unavailable;
  return last;
}

void Client::cancel() {
  const std::scoped_lock lock(inner_->mutex);
  inner_->cancelled = true;
  if (inner_->streaming != nullptr) inner_->streaming->stop();
}

Status Client::Inner::stream_once(const Request& request, const std::function<bool(std::string_view)>& take,
                                  const std::function<void()>& opened) {
  TRY_ASSIGN(const auto client, connect(address(), options));
  client->set_read_timeout(std::chrono::hours(24 * 365));
  Response head{0, "", "", nullptr};
  bool stopped = false;
  httplib::Request http = http_of(request);
  http.response_handler = [&](const httplib::Response& response) {
    head.status = response.status;
    const std::scoped_lock lock(mutex);
    if (head.status < 400 && opened) opened();
    return !cancelled;
  };
  http.content_receiver = [&](const char* data, std::size_t size, std::uint64_t, std::uint64_t) {
    if (head.status >= 400)
      head.body.append(data, size);
    else
      stopped = !take({data, size});
    return !stopped;
  };
  const auto set_streaming = [this](httplib::SSLClient* one) {
    const std::scoped_lock lock(mutex);
    streaming = one;
  };
  forget_alerts();
  set_streaming(client.get());
  const auto result = client->send(http);
  set_streaming(nullptr);
  if (stopped || cancelled) return {};
  if (head.status >= 400) return error_of(head);
  if (result) return {};
  Error problem = failure(*client, result.error(), address());
  if (problem.code == Code::outcome_unknown)
    problem.code = head.status == 0 ? Code::unavailable : Code::failed;
  return problem;
}

Status Client::stream(const Request& request, const std::function<bool(std::string_view)>& take,
                      const std::function<void()>& opened) {
  Status last = Error{Code::invalid, "No host to talk to is known: use --host, --context or HOLDFAST_API."};
  for (std::size_t i = 0; i < inner_->options.endpoints.size(); ++i, ++inner_->current) {
    last = inner_->stream_once(request, take, opened);
    if (last.ok() || last.code() != Code::unavailable) return last;
  }
  return last;
}

namespace {
// A stream of another host: a thread of its own reads it, next() hands it on.
class RemoteStream : public Stream {
 public:
  RemoteStream(Client client, Request request) : client_(std::move(client)), request_(std::move(request)) {
    reader_ = std::thread([this] { read(); });
  }
  ~RemoteStream() override {
    {
      const std::scoped_lock lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    client_.cancel();
    reader_.join();
  }
  // Until the other host has answered.
  Status wait_opened() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return opened_ || ended_; });
    return opened_ ? Status() : outcome_;
  }
  std::optional<std::string> next() override {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::milliseconds(500), [this] { return !data_.empty() || ended_; });
    if (data_.empty() && ended_) return std::nullopt;
    changed_.notify_all();
    return std::exchange(data_, std::string());
  }

 private:
  void read() {
    const auto take = [this](std::string_view text) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return stopping_ || data_.size() < kQueuedBytesMax; });
      data_ += text;
      changed_.notify_all();
      return !stopping_;
    };
    const auto opened = [this] {
      const std::scoped_lock lock(mutex_);
      opened_ = true;
      changed_.notify_all();
    };
    Status outcome = client_.stream(request_, take, opened);
    const std::scoped_lock lock(mutex_);
    outcome_ = outcome.ok() ? Status(Error{Code::unavailable, "The host ended the stream."}) : outcome;
    ended_ = true;
    changed_.notify_all();
  }
  Client client_;
  const Request request_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string data_;
  bool stopping_ = false, opened_ = false, ended_ = false;
  Status outcome_;
  std::thread reader_;
};
}  // namespace

Result<Response> HttpPeers::forward(const HostId& host, const std::string& address, const Request& request) {
  Client client({{address}, credentials_, host.text, 15s});
  if (request.method == "GET" && request.path.ends_with("/console")) {
    auto stream = std::make_unique<RemoteStream>(std::move(client), request);
    TRY(stream->wait_opened());
    return Response{200, "application/octet-stream", "", std::move(stream)};
  }
  auto response = client.exchange(request);
  if (!response.ok() && response.code() == Code::denied)
    return Error{Code::unavailable, response.error().what};
  return response;
}

std::string escape(const std::string& text) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) != 0 || c == '-' || c == '.' || c == '_' || c == '~')
      out += c;
    else
      out += {'%', kHex[byte >> 4U], kHex[byte & 15U]};
  }
  return out;
}

}  // namespace hf::api
