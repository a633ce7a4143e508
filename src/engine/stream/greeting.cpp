// How connections begin: TCP, what the two sides want, TLS, and who they are.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <thread>

#include "base/ensure.hpp"
#include "base/log.hpp"
#include "engine/stream/connection.hpp"
#include "engine/wire/message.hpp"
#include "sys/pki/tls.hpp"
#include "sys/process/clock.hpp"

namespace hf::engine {
namespace {
using wire::Choice;
using wire::Wish;

constexpr Duration kStrangerPatience = 3s;  // for each step of whoever connects: others wait behind him
constexpr Duration kForever = std::chrono::hours(24);
constexpr int kBacklog = 64;

struct Address {
  sockaddr_storage storage{};
  socklen_t size = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

// "10.77.1.2:7445" or "[fd00::1]:7445".
Result<Address> address_of(const std::string& text) {
  const Error bad{Code::invalid, text + " is not an address: write it as 10.77.1.2:7445 or [fd00::1]:7445."};
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon + 1 == text.size()) return bad;
  std::string host = text.substr(0, colon);
  char* end = nullptr;
  const unsigned long port = std::strtoul(text.c_str() + colon + 1, &end, 10);
  if (*end != '\0' || port > UINT16_MAX) return bad;
  Address address;
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    auto* v6 = reinterpret_cast<sockaddr_in6*>(&address.storage);
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(static_cast<std::uint16_t>(port));
    address.size = sizeof *v6;
    if (::inet_pton(AF_INET6, host.substr(1, host.size() - 2).c_str(), &v6->sin6_addr) != 1) return bad;
    return address;
  }
  auto* v4 = reinterpret_cast<sockaddr_in*>(&address.storage);
  v4->sin_family = AF_INET;
  v4->sin_port = htons(static_cast<std::uint16_t>(port));
  address.size = sizeof *v4;
  if (::inet_pton(AF_INET, host.c_str(), &v4->sin_addr) != 1) return bad;
  return address;
}

std::string text_of(const sockaddr_storage& storage) {
  char host[INET6_ADDRSTRLEN] = "";
  if (storage.ss_family == AF_INET6) {
    const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&storage);
    ::inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof host);
    return fmt::format("[{}]:{}", host, ntohs(v6->sin6_port));
  }
  const auto* v4 = reinterpret_cast<const sockaddr_in*>(&storage);
  ::inet_ntop(AF_INET, &v4->sin_addr, host, sizeof host);
  return fmt::format("{}:{}", host, ntohs(v4->sin_port));
}

// Until the socket is ready; the error of `failure` if that is set meanwhile, Code::timed_out after `patience`.
Status wait_for(int socket, short events, Duration patience, const Failure& failure) {
  pollfd waiting[] = {{socket, events, 0}, {failure.descriptor(), POLLIN, 0}};
  const auto left = std::max<std::int64_t>(0, patience.count());
  const timespec timeout{left / 1'000'000'000, left % 1'000'000'000};
  const int ready = ::ppoll(waiting, 2, &timeout, nullptr);
  if (waiting[1].revents != 0) return failure.status();
  return ready != 0 ? Status() : Status(Error{Code::timed_out, "Nobody answered in time."});
}

Result<process::UniqueFd> connect_socket(const std::string& endpoint, Duration patience,
                                         const Failure& failure) {
  TRY_ASSIGN(const Address address, address_of(endpoint));
  process::UniqueFd socket(
      ::socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return from_errno("Cannot make a socket", errno);
  const Error unreachable{Code::unavailable, "The destination cannot be reached at " + endpoint + "."};
  if (::connect(socket.get(), address.get(), address.size) == 0) return socket;
  if (errno != EINPROGRESS) return unreachable;
  if (const Status ready = wait_for(socket.get(), POLLOUT, patience, failure); !ready.ok())
    return ready.code() == Code::timed_out ? unreachable : ready.error();
  int error = 0;
  socklen_t size = sizeof error;
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0) return unreachable;
  return socket;
}

// None where there are no certificates, or they are not to be used.
Result<TlsContext> context_for(const ConnectionOptions& options, tls::Side side) {
  if (options.encryption == Encryption::off) return TlsContext();
  if (!options.credentials) {
    if (options.encryption == Encryption::opportunistic) return TlsContext();
    return Error{Code::invalid, "Encrypted page streams need this host's certificate, and it has none."};
  }
  TlsContext context(SSL_CTX_new(side == tls::Side::server ? TLS_server_method() : TLS_client_method()));
  ENSURE(context != nullptr, "OpenSSL has memory for a context");
  TRY(tls::configure(context.get(), *options.credentials, side));
  tls::expect_host(context.get(), &options.peer.text);
  return context;
}

bool same_secret(const std::string& mine, const std::string& theirs) {
  return !mine.empty() && mine.size() == theirs.size() &&
         CRYPTO_memcmp(mine.data(), theirs.data(), mine.size()) == 0;
}

std::vector<std::uint64_t> sizes_of(const std::vector<RamBlock>& blocks) {
  std::vector<std::uint64_t> sizes;
  for (const RamBlock& block : blocks) sizes.push_back(block.bytes);
  return sizes;
}

std::string version_text(int theirs) {
  return fmt::format(
      "the other host speaks version {} of the page streams, this one version {}: "
      "bring both to the same version of Holdfast.",
      theirs, wire::kVersion);
}

// ---- source ----

Status agree(Connection& connection, const ConnectionOptions& options, SSL_CTX* context) {
  const bool may_plain = options.encryption != Encryption::required;
  const Wish wish = context == nullptr ? Wish::plain : may_plain ? Wish::tls_if_possible : Wish::tls;
  TRY(connection.write_plain(wire::encode(wire::Greeting{wire::kVersion, static_cast<std::uint8_t>(wish)})));
  wire::GreetingBytes bytes;
  TRY(connection.read_plain(bytes));
  TRY_ASSIGN(const wire::Greeting answer, wire::decode_greeting(bytes));
  if (answer.version != wire::kVersion)
    return Error{Code::unsupported, "Pages cannot be sent: " + version_text(answer.version)};
  // safety: whoever wants encryption does not go on without, whatever the other side says.
  if (answer.word == static_cast<std::uint8_t>(Choice::tls) && context != nullptr)
    return connection.start_tls(context, false);
  if (answer.word == static_cast<std::uint8_t>(Choice::plain) && may_plain) return {};
  return Error{Code::denied,
               wish == Wish::plain
                   ? "The destination insists on encrypted page streams, which are off at this host."
                   : "Encrypted page streams are required at this host, and the destination has them off."};
}

Status introduce(Connection& connection, wire::Bytes first_frame, Duration patience) {
  const Status sent = connection.write(first_frame);
  const Result<Frame> answer = connection.read(patience);
  if (!answer.ok()) return answer.error();
  TRY(sent);
  if (answer->header.kind == wire::Kind::welcome) return {};
  if (answer->header.kind != wire::Kind::refused)
    return Error{Code::corrupt, "The destination did not answer as it should."};
  TRY_ASSIGN(const std::string reason, wire::decode_reason(answer->body));
  return Error{Code::denied, "The destination refuses the page streams: " + reason};
}

// One connection, as far as `welcome`.
Result<std::unique_ptr<Connection>> connect_one(const std::string& endpoint, const ConnectionOptions& options,
                                                SSL_CTX* context, wire::Bytes first_frame, const Failure& failure) {
  TRY_ASSIGN(process::UniqueFd socket, connect_socket(endpoint, options.silence, failure));
  auto connection = std::make_unique<Connection>(std::move(socket), failure, options.silence, options.peer.text);
  TRY(agree(*connection, options, context));
  TRY(introduce(*connection, first_frame, options.silence));
  return connection;
}

// ---- destination ----

struct Newcomer {
  std::unique_ptr<Connection> connection;
  wire::Hello hello;
  bool encrypted = false;
};

Status agree_as_destination(Connection& connection, const ConnectionOptions& options, SSL_CTX* context) {
  wire::GreetingBytes bytes;
  TRY(connection.read_plain(bytes));
  TRY_ASSIGN(const wire::Greeting wanted, wire::decode_greeting(bytes));
  const auto wish = static_cast<Wish>(wanted.word);
  Choice choice = Choice::not_this_encryption;
  if (wanted.version != wire::kVersion) {
    choice = Choice::other_version;
  } else if (context != nullptr && (wish == Wish::tls || wish == Wish::tls_if_possible)) {
    choice = Choice::tls;
  } else if (options.encryption != Encryption::required &&
             (wish == Wish::plain || wish == Wish::tls_if_possible)) {
    choice = Choice::plain;
  }
  TRY(connection.write_plain(
      wire::encode(wire::Greeting{wire::kVersion, static_cast<std::uint8_t>(choice)})));
  if (choice == Choice::other_version)
    return Error{Code::unsupported, "Refused: " + version_text(wanted.version)};
  if (choice == Choice::not_this_encryption)
    return Error{Code::denied, "The source and this host do not agree whether page streams are encrypted."};
  return choice == Choice::tls ? connection.start_tls(context, true) : Status();
}

// Empty: it belongs to this motion.
std::string objection_to(const std::string& token, const std::string& motion, const std::string& vm,
                         const ConnectionOptions& options) {
  // safety: without the motion's secret, nobody writes into a VM's memory.
  if (!same_secret(options.token, token)) return "The token is not this motion's.";
  if (motion != options.motion.text || vm != options.vm.text)
    return "This is motion " + options.motion.text + " of VM " + options.vm.text +
           ", not the one that was named.";
  return "";
}

// Empty: welcome.
std::string objection_to(const wire::Hello& hello, const ConnectionOptions& options,
                         const std::vector<RamBlock>& blocks) {
  if (std::string stranger = objection_to(hello.token, hello.motion, hello.vm, options); !stranger.empty())
    return stranger;
  if (options.pages != (hello.data_streams > 0))
    return "The hosts do not agree who copies the memory: Holdfast's engine, or QEMU's own migration.";
  if (hello.data_streams > kDataStreamsMax || hello.stream > hello.data_streams)
    return "The number of page streams is wrong.";
  if (hello.blocks != sizes_of(blocks)) return "The VM's memory has other sizes here.";
  return "";
}

// Somebody who has connected, as far as his first frame.
struct Visitor {
  std::unique_ptr<Connection> connection;
  Frame first;
};

Result<Visitor> receive_visitor(process::UniqueFd socket, const std::string& from, const ConnectionOptions& options,
                                SSL_CTX* context, const Failure& failure) {
  const Duration patience = std::min(options.silence, kStrangerPatience);
  Visitor visitor;
  visitor.connection = std::make_unique<Connection>(std::move(socket), failure, patience,
                                                    options.peer.text + " (" + from + ")");
  TRY(agree_as_destination(*visitor.connection, options, context));
  TRY_ASSIGN(visitor.first, visitor.connection->read(patience));
  return visitor;
}

Error turn_away(Connection& connection, const std::string& why) {
  connection.try_write(wire::frame_of(wire::Kind::refused, wire::encode_reason(why)));
  return {Code::denied, why};
}

Status welcome(Connection& connection, const ConnectionOptions& options) {
  TRY(connection.write(wire::frame_of(wire::Kind::welcome, {})));
  connection.set_silence(options.silence);
  return {};
}

Result<Newcomer> page_stream(Visitor visitor, const ConnectionOptions& options, const std::vector<RamBlock>& blocks) {
  Newcomer newcomer;
  newcomer.connection = std::move(visitor.connection);
  newcomer.encrypted = newcomer.connection->is_encrypted();
  if (visitor.first.header.kind != wire::Kind::hello)
    return Error{Code::corrupt, "It did not introduce itself."};
  TRY_ASSIGN(newcomer.hello, wire::decode_hello(visitor.first.body));
  const std::string objection = objection_to(newcomer.hello, options, blocks);
  if (!objection.empty()) return turn_away(*newcomer.connection, objection);
  TRY(welcome(*newcomer.connection, options));
  return newcomer;
}

Result<std::unique_ptr<Connection>> tunnelled(Visitor visitor, const ConnectionOptions& options, bool encrypted,
                                              const Listener::Join& join) {
  Connection& connection = *visitor.connection;
  if (visitor.first.header.kind != wire::Kind::tunnel) return turn_away(connection, "This motion has begun already.");
  TRY_ASSIGN(const wire::TunnelHello hello, wire::decode_tunnel_hello(visitor.first.body));
  const std::string stranger = objection_to(hello.token, hello.motion, hello.vm, options);
  if (!stranger.empty()) return turn_away(connection, stranger);
  // safety: what could be talked down to plain is, at least, no less protected than what came before.
  if (connection.is_encrypted() != encrypted)
    return turn_away(connection, "The motion's other connections are not encrypted as this one is.");
  if (const Status joined = join(hello.channel); !joined.ok()) return turn_away(connection, joined.error().what);
  TRY(welcome(connection, options));
  return std::move(visitor.connection);
}

// Puts it among those that are there. A control connection begins anew: the source may have had to.
Status enrol(Connections& all, Newcomer newcomer) {
  const unsigned index = newcomer.hello.stream;
  if (index == 0) {
    all.data.clear();
    all.data.resize(newcomer.hello.data_streams);
    all.encrypted = newcomer.encrypted;
    all.control = std::move(newcomer.connection);
    return {};
  }
  if (all.control == nullptr || newcomer.hello.data_streams != all.data.size() ||
      all.data[index - 1] != nullptr || newcomer.encrypted != all.encrypted) {
    return Error{Code::invalid, "Its place among the page streams is taken or unknown."};
  }
  all.data[index - 1] = std::move(newcomer.connection);
  return {};
}

process::UniqueFd accept_socket(int listening, std::string& from) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  process::UniqueFd socket(::accept4(listening, reinterpret_cast<sockaddr*>(&address), &size, SOCK_CLOEXEC));
  if (socket) from = text_of(address);
  return socket;
}

void log_refusal(const std::string& from, const ConnectionOptions& options, const std::string& why) {
  log(Level::warn, "a page stream was refused", {{"from", from}, {"motion", options.motion.text}, {"why", why}});
}

bool is_complete(const Connections& all) {
  return all.control != nullptr &&
         std::all_of(all.data.begin(), all.data.end(), [](const auto& one) { return one != nullptr; });
}
}  // namespace

unsigned default_data_streams() {
  return std::clamp(std::thread::hardware_concurrency(), 1U, kDataStreamsMax);
}

Result<Encryption> encryption_named(const std::string& name) {
  if (name == "off") return Encryption::off;
  if (name == "opportunistic") return Encryption::opportunistic;
  if (name == "required") return Encryption::required;
  return Error{Code::invalid, "Encryption is off, opportunistic or required, not " + name + "."};
}

Connections::Connections() = default;
Connections::Connections(Connections&&) noexcept = default;
Connections& Connections::operator=(Connections&&) noexcept = default;
Connections::~Connections() = default;

Result<Connections> connect(const std::string& endpoint, const ConnectionOptions& options,
                            const std::vector<RamBlock>& blocks, std::shared_ptr<Failure> failure) {
  if (options.pages && (options.data_streams < 1 || options.data_streams > kDataStreamsMax))
    return Error{Code::invalid, fmt::format("A motion has 1 to {} page streams.", kDataStreamsMax)};
  TRY_ASSIGN(const TlsContext context, context_for(options, tls::Side::client));
  Connections all;
  const unsigned data_streams = options.pages ? options.data_streams : 0;
  wire::Hello hello{.data_streams = static_cast<std::uint8_t>(data_streams),
                    .token = options.token,
                    .motion = options.motion.text,
                    .vm = options.vm.text,
                    .blocks = sizes_of(blocks)};
  for (unsigned index = 0; index <= data_streams; ++index) {
    hello.stream = static_cast<std::uint8_t>(index);
    const auto first_frame = wire::frame_of(wire::Kind::hello, wire::encode(hello));
    TRY_ASSIGN(auto connection, connect_one(endpoint, options, context.get(), first_frame, *failure));
    if (index == 0) {
      all.encrypted = connection->is_encrypted();
      all.control = std::move(connection);
    } else {
      all.data.push_back(std::move(connection));
    }
  }
  all.failure = std::move(failure);
  all.silence = options.silence;
  return all;
}

Result<std::unique_ptr<Connection>> connect_tunnel(const std::string& endpoint, const ConnectionOptions& options,
                                                   bool encrypted, const std::string& channel,
                                                   const Failure& failure) {
  TRY_ASSIGN(const TlsContext context, context_for(options, tls::Side::client));
  const wire::TunnelHello hello{options.token, options.motion.text, options.vm.text, channel};
  const auto first_frame = wire::frame_of(wire::Kind::tunnel, wire::encode(hello));
  TRY_ASSIGN(auto connection, connect_one(endpoint, options, context.get(), first_frame, failure));
  if (connection->is_encrypted() == encrypted) return connection;
  return Error{Code::denied, "The destination does not encrypt this connection as the motion's others are."};
}

Result<Listener> Listener::open(const std::string& address) {
  const std::size_t dash = address.rfind('-'), colon = address.rfind(':');
  if (dash == std::string::npos || colon == std::string::npos || dash < colon) return open_port(address);
  const int first = std::atoi(address.c_str() + colon + 1), last = std::atoi(address.c_str() + dash + 1);
  for (int port = first; port <= last; ++port) {
    auto listener = open_port(fmt::format("{}:{}", address.substr(0, colon), port));
    if (listener.ok() || listener.code() != Code::exists) return listener;
  }
  return Error{Code::no_room, fmt::format("All ports for VMs in motion are in use at {}. Wait until other motions have "
                                          "ended, or give more of them as motion_ports in config.json.", address)};
}

Result<Listener> Listener::open_port(const std::string& address) {
  TRY_ASSIGN(const Address where, address_of(address));
  Listener listener;
  listener.socket_.reset(::socket(where.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listener.socket_) return from_errno("Cannot make a socket", errno);
  const int yes = 1;
  ::setsockopt(listener.socket_.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (::bind(listener.socket_.get(), where.get(), where.size) != 0 ||
      ::listen(listener.socket_.get(), kBacklog) != 0) {
    if (errno == EADDRINUSE) return Error{Code::exists, "Something else waits on " + address + " already."};
    return from_errno("Cannot wait for page streams on " + address, errno);
  }
  sockaddr_storage real{};
  socklen_t size = sizeof real;
  ENSURE(::getsockname(listener.socket_.get(), reinterpret_cast<sockaddr*>(&real), &size) == 0,
         "a bound socket");
  listener.endpoint_ = text_of(real);
  return listener;
}

Result<Connections> Listener::accept(const ConnectionOptions& options, const std::vector<RamBlock>& blocks,
                                     Duration patience, std::shared_ptr<Failure> failure) {
  TRY_ASSIGN(const TlsContext context, context_for(options, tls::Side::server));
  const Instant end = sys::boot_now() + patience;
  Connections all;
  std::string last_stranger;
  while (!is_complete(all)) {
    if (const Status ready = wait_for(socket_.get(), POLLIN, end - sys::boot_now(), *failure); !ready.ok()) {
      if (ready.code() != Code::timed_out) return ready.error();
      return Error{Code::timed_out,
                   "The source did not connect in time." +
                       (last_stranger.empty() ? "" : " Somebody else was refused: " + last_stranger)};
    }
    std::string from;
    process::UniqueFd socket = accept_socket(socket_.get(), from);
    if (!socket) continue;  // it was gone again
    auto visitor = receive_visitor(std::move(socket), from, options, context.get(), *failure);
    Result<Newcomer> newcomer = visitor.ok() ? page_stream(std::move(visitor).value(), options, blocks)
                                             : Result<Newcomer>(visitor.error());
    const Status enrolled =
        newcomer.ok() ? enrol(all, std::move(newcomer).value()) : Status(newcomer.error());
    if (failure->is_set()) return failure->status().error();
    if (enrolled.ok()) continue;
    last_stranger = enrolled.error().what;
    log_refusal(from, options, last_stranger);
  }
  all.failure = std::move(failure);
  all.silence = options.silence;
  return all;
}

Result<std::unique_ptr<Connection>> Listener::accept_tunnel(const ConnectionOptions& options, bool encrypted,
                                                            const Join& join, const Failure& failure) {
  TRY_ASSIGN(const TlsContext context, context_for(options, tls::Side::server));
  for (;;) {
    const Status ready = wait_for(socket_.get(), POLLIN, kForever, failure);
    if (!ready.ok() && ready.code() != Code::timed_out) return ready.error();
    std::string from;
    process::UniqueFd socket = ready.ok() ? accept_socket(socket_.get(), from) : process::UniqueFd();
    if (!socket) continue;
    auto visitor = receive_visitor(std::move(socket), from, options, context.get(), failure);
    auto connection = visitor.ok() ? tunnelled(std::move(visitor).value(), options, encrypted, join)
                                   : Result<std::unique_ptr<Connection>>(visitor.error());
    if (failure.is_set()) return failure.status().error();
    if (connection.ok()) return connection;
    log_refusal(from, options, connection.error().what);
  }
}

}  // namespace hf::engine
