#include "api/server.hpp"

#include <httplib.h>
#include <poll.h>

#include <atomic>
#include <charconv>
#include <thread>

#include "base/log.hpp"
#include "sys/pki/tls.hpp"

namespace hf::api {
namespace {
constexpr int kThreads = 32;
constexpr int kPatienceSeconds = 10;

bool hung_up(int socket) {
  pollfd waiting{socket, POLLRDHUP, 0};
  return ::poll(&waiting, 1, 0) > 0;
}

Request request_of(const httplib::Request& in) {
  Request out;
  out.method = in.method;
  out.path = in.path;
  for (const auto& [name, value] : in.params) out.query.emplace(name, value);
  out.body = in.body;
  out.idempotency_key = in.get_header_value("Idempotency-Key");
  out.last_event_id = in.get_header_value("Last-Event-ID");
  out.requested_by = in.get_header_value("Holdfast-Requested-By");
  out.forwarded = in.has_header("Holdfast-Forwarded");
  out.caller.certificate_pem = in.ssl != nullptr ? tls::peer_certificate(in.ssl) : "";
  return out;
}
}  // namespace

struct Server::Inner {
  Inner(Handler& a_handler, pki::Credentials some_credentials)
      : handler(a_handler), credentials(std::move(some_credentials)) {}

  void serve(const httplib::Request& in, httplib::Response& out) {
    Request request = request_of(in);
    const auto identity = pki::identity_of(request.caller.certificate_pem);
    Response response;
    if (identity.ok()) {
      request.caller.role = identity->role;
      request.caller.name = identity->name;
      response = handler.handle(request);
    } else {
      response = error_response(identity.error());
    }
    out.status = response.status;
    out.set_header("Cache-Control", "no-store");
    if (!response.stream) return out.set_content(response.body, response.content_type);
    send_stream(std::move(response), SSL_get_fd(in.ssl), out);
  }

  void send_stream(Response response, int socket, httplib::Response& out) {
    const bool events = response.content_type == "text/event-stream";
    const std::shared_ptr<Stream> stream = std::move(response.stream);  // std::function wants to be copied
    const auto provide = [this, stream, socket, events](std::size_t, httplib::DataSink& sink) {
      if (stopping || hung_up(socket)) return false;
      const auto text = stream->next();
      if (!text)
        sink.done();
      else if (!text->empty())
        return sink.write(text->data(), text->size());
      else if (events)
        return sink.write(":\n\n", 3);  // a comment: tells proxies and clients that it lives
      return true;
    };
    out.set_chunked_content_provider(response.content_type, provide);
  }

  void route_everything() {
    const auto serve_one = [this](const httplib::Request& in, httplib::Response& out) { serve(in, out); };
    server->Get(".*", serve_one).Post(".*", serve_one).Put(".*", serve_one);
    server->Patch(".*", serve_one).Delete(".*", serve_one).Options(".*", serve_one);
    server->set_payload_max_length(kBodyBytesMax);
    server->set_read_timeout(kPatienceSeconds);
    server->set_write_timeout(kPatienceSeconds);
    server->set_keep_alive_max_count(100);
    server->set_tcp_nodelay(true);
    server->new_task_queue = [] { return new httplib::ThreadPool(kThreads); };
    server->set_error_handler([](const httplib::Request&, httplib::Response& out) {
      if (!out.body.empty()) return;
      const bool large = out.status == 413;
      out.set_content(error_response({Code::invalid, large ? "The request is larger than 4 MiB."
                                                           : "The request is not HTTP as it should be."})
                          .body,
                      "application/json");
    });
  }

  Handler& handler;
  pki::Credentials credentials;
  std::unique_ptr<httplib::SSLServer> server;
  std::thread listener;
  int port = 0;
  std::atomic<bool> stopping{false};
};

Server::Server(Handler& handler, pki::Credentials credentials)
    : inner_(std::make_unique<Inner>(handler, std::move(credentials))) {}
Server::~Server() { stop(); }
int Server::port() const { return inner_->port; }

Status Server::start(const std::string& address) {
  TRY_ASSIGN(const Endpoint endpoint, parse_endpoint(address));
  Status configured;
  inner_->server = std::make_unique<httplib::SSLServer>([&](SSL_CTX& context) {
    configured = tls::configure(&context, inner_->credentials, tls::Side::server);
    return configured.ok();
  });
  TRY(configured);
  inner_->route_everything();
  httplib::SSLServer& server = *inner_->server;
  inner_->port = endpoint.port == 0
                     ? server.bind_to_any_port(endpoint.host)
                     : (server.bind_to_port(endpoint.host, endpoint.port) ? endpoint.port : -1);
  if (inner_->port < 0) return Error{Code::failed, "Cannot listen on " + address + ": is the port in use?"};
  inner_->listener = std::thread([&server] { server.listen_after_bind(); });
  // The socket accepts since bind; this only makes sure that stop() finds the loop running.
  while (!server.is_running()) std::this_thread::yield();
  return {};
}

void Server::stop() {
  if (!inner_->listener.joinable()) return;
  inner_->stopping = true;
  inner_->server->stop();
  inner_->listener.join();
}

Result<Endpoint> parse_endpoint(const std::string& text) {
  std::string rest = text.starts_with("https://") ? text.substr(8) : text;
  if (!rest.empty() && rest.back() == '/') rest.pop_back();
  Endpoint out{rest, kDefaultPort};
  const auto colon = rest.rfind(':');
  const bool bracketed = rest.starts_with('[');
  const bool has_port =
      colon != std::string::npos && (bracketed ? rest[colon - 1] == ']' : rest.find(':') == colon);
  if (has_port) {
    out.host = rest.substr(0, colon);
    const char* end = rest.data() + rest.size();
    const auto parsed = std::from_chars(rest.data() + colon + 1, end, out.port);
    if (parsed.ec != std::errc() || parsed.ptr != end || out.port < 0 || out.port > 65535) out.host.clear();
  }
  if (bracketed && out.host.size() > 2) out.host = out.host.substr(1, out.host.size() - 2);
  if (out.host.empty() || out.host.find_first_of("/ @?#") != std::string::npos) {
    return Error{Code::invalid, "\"" + text + "\" is no address: write it as 10.0.0.1:7443."};
  }
  return out;
}

}  // namespace hf::api
