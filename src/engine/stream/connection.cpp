#include "engine/stream/connection.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "base/ensure.hpp"
#include "sys/pki/tls.hpp"
#include "sys/process/clock.hpp"

namespace hf::engine {
namespace {
constexpr std::size_t kBufferBytes = 2 * (wire::kHeaderBytes + wire::kBodyMax);
constexpr std::size_t kTlsReadAhead = 128 * 1024;  // a few records with one system call

std::string seconds_of(Duration duration) {
  return fmt::format("{:g} s", std::chrono::duration<double>(duration).count());
}

// OpenSSL's way out: its records go to the end of a vector.
int keep_records(BIO* bio, const char* data, std::size_t size, std::size_t* taken) {
  auto& records = *static_cast<std::vector<std::byte>*>(BIO_get_data(bio));
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  records.insert(records.end(), bytes, bytes + size);
  *taken = size;
  return 1;
}
long control(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

BIO* new_record_keeper(std::vector<std::byte>& records) {
  static BIO_METHOD* const method = [] {
    BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "records");
    ENSURE(made != nullptr, "OpenSSL has memory for a table");
    BIO_meth_set_write_ex(made, keep_records);
    BIO_meth_set_ctrl(made, control);
    return made;
  }();
  BIO* bio = BIO_new(method);
  ENSURE(bio != nullptr, "OpenSSL has memory for a connection");
  BIO_set_data(bio, &records);
  BIO_set_init(bio, 1);
  return bio;
}

timespec to_timespec(Duration duration) {
  return {duration.count() / 1'000'000'000, duration.count() % 1'000'000'000};
}
}  // namespace

Connection::Connection(process::UniqueFd socket, const Failure& failure, Duration silence, std::string peer)
    : socket_(std::move(socket)),
      failure_(failure),
      silence_(silence),
      peer_(std::move(peer)),
      buffer_(kBufferBytes) {
  const int flags = ::fcntl(socket_.get(), F_GETFL);
  ENSURE(flags >= 0 && ::fcntl(socket_.get(), F_SETFL, flags | O_NONBLOCK) == 0,
         "a socket can be non-blocking");
  const int yes = 1;
  ENSURE(::setsockopt(socket_.get(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) == 0, "it is a TCP socket");
}
Connection::~Connection() = default;

Error Connection::gone(const std::string& what) const {
  return {Code::unavailable, "The connection to " + peer_ + " " + what};
}

Status Connection::wait(short events, Duration patience) const {
  pollfd waiting[] = {{socket_.get(), events, 0}, {failure_.descriptor(), POLLIN, 0}};
  const timespec timeout = to_timespec(patience);
  const int ready = ::ppoll(waiting, 2, &timeout, nullptr);
  if (ready < 0 && errno != EINTR) return from_errno("Cannot wait for the connection to " + peer_, errno);
  // What has come is read first: the other side's last words are among it when its connections break.
  if (waiting[1].revents != 0 && !(events == POLLIN && (waiting[0].revents & POLLIN) != 0)) return failure_.status();
  if (ready == 0) return gone("moved nothing for " + seconds_of(patience) + ".");
  return {};
}

Status Connection::send_all(const std::byte* bytes, std::size_t count) {
  while (count > 0) {
    const ssize_t sent = ::send(socket_.get(), bytes, count, MSG_NOSIGNAL);
    if (sent > 0) {
      bytes += sent;
      count -= static_cast<std::size_t>(sent);
    } else if (errno == EAGAIN || errno == EINTR) {
      const Instant from = sys::boot_now();
      const Status ready = wait(POLLOUT, silence_);
      blocked_ns_.fetch_add((sys::boot_now() - from).count(), std::memory_order_relaxed);
      TRY(ready);
    } else {
      return gone(fmt::format("broke: {}.", std::strerror(errno)));
    }
  }
  return {};
}

Status Connection::write_plain(std::span<const std::byte> bytes) {
  return send_all(bytes.data(), bytes.size());
}

Status Connection::read_plain(std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    TRY_ASSIGN(const std::size_t count, receive(bytes));
    if (count == 0) TRY(wait(POLLIN, silence_));
    bytes = bytes.subspan(count);
  }
  return {};
}

Status Connection::start_tls(SSL_CTX* context, bool is_server) {
  SSL_CTX_set_read_ahead(context, 1);
  SSL_CTX_set_default_read_buffer_len(context, kTlsReadAhead);
  tls_.reset(SSL_new(context));
  ENSURE(tls_ != nullptr, "OpenSSL has memory for a connection");
  SSL_set_bio(tls_.get(), BIO_new_socket(socket_.get(), BIO_NOCLOSE), new_record_keeper(records_));
  if (is_server) {
    SSL_set_accept_state(tls_.get());
  } else {
    SSL_set_connect_state(tls_.get());
  }
  (void)tls::take_alert();  // of an earlier connection
  while (true) {
    ERR_clear_error();
    const int done = SSL_do_handshake(tls_.get());
    const int why = SSL_get_error(tls_.get(), done);
    TRY(send_all(records_.data(), records_.size()));
    records_.clear();
    if (done == 1) return {};
    if (why == SSL_ERROR_WANT_READ) {
      TRY(wait(POLLIN, silence_));
      continue;
    }
    const std::string alert = tls::take_alert();
    if (!alert.empty())
      return Error{Code::denied, "Host " + peer_ + " refuses this host's certificate (" + alert + ")."};
    if (SSL_get_verify_result(tls_.get()) != X509_V_OK)
      return Error{Code::denied, "What is connected is not host " + peer_ +
                                     " of this cluster: its certificate does not fit."};
    return gone("broke while it was being encrypted.");
  }
}

// The frame as it goes out. REQUIRES: the lock of writing.
Result<std::span<const std::byte>> Connection::encrypted(wire::Bytes frame) {
  if (tls_ == nullptr) return frame;
  const std::scoped_lock lock(tls_mutex_);
  ERR_clear_error();
  std::size_t taken = 0;
  if (SSL_write_ex(tls_.get(), frame.data(), frame.size(), &taken) != 1 || taken != frame.size())
    return gone("cannot be encrypted any more.");
  // With what reading has made since the last time: records go out in the order in which TLS counts them.
  outgoing_.clear();
  outgoing_.swap(records_);
  return std::span<const std::byte>(outgoing_);
}

Status Connection::write(wire::Bytes frame) {
  const std::scoped_lock lock(write_mutex_);
  TRY_ASSIGN(const auto out, encrypted(frame));
  is_torn_ = true;
  TRY(send_all(out.data(), out.size()));
  is_torn_ = false;
  written_.fetch_add(frame.size(), std::memory_order_relaxed);
  return {};
}

void Connection::try_write(wire::Bytes frame) {
  const std::unique_lock lock(write_mutex_, std::try_to_lock);
  if (!lock.owns_lock() || is_torn_) return;
  const auto out = encrypted(frame);
  if (!out.ok()) return;
  const ssize_t sent = ::send(socket_.get(), out->data(), out->size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  is_torn_ = sent != static_cast<ssize_t>(out->size());
}

void Connection::shut_down() { ::shutdown(socket_.get(), SHUT_RDWR); }

Result<std::size_t> Connection::receive(std::span<std::byte> to) {
  if (tls_ != nullptr) return receive_tls(to);
  const ssize_t count = ::recv(socket_.get(), to.data(), to.size(), 0);
  if (count > 0) return static_cast<std::size_t>(count);
  if (count == 0) return gone("was closed by the other side.");
  if (errno == EAGAIN || errno == EINTR) return std::size_t{0};
  return gone(fmt::format("broke: {}.", std::strerror(errno)));
}

Result<std::size_t> Connection::receive_tls(std::span<std::byte> to) {
  const std::scoped_lock lock(tls_mutex_);
  ERR_clear_error();
  std::size_t count = 0;
  if (SSL_read_ex(tls_.get(), to.data(), to.size(), &count) == 1) return count;
  const int why = SSL_get_error(tls_.get(), 0);
  if (why == SSL_ERROR_WANT_READ) return std::size_t{0};
  const std::string alert = tls::take_alert();
  // With TLS 1.3 a client learns only now that its certificate was refused.
  if (!alert.empty())
    return Error{Code::denied, "Host " + peer_ + " refuses this host's certificate (" + alert + ")."};
  // A process that ended says no goodbye.
  const bool ended = ERR_GET_REASON(ERR_peek_last_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING;
  if (why == SSL_ERROR_SSL && !ended)
    return Error{Code::corrupt, "The encrypted connection to " + peer_ + " is damaged."};
  return gone("was closed by the other side.");
}

// Until `needed` bytes are in the buffer.
Status Connection::fill(std::size_t needed, Duration patience) {
  if (begin_ == end_) begin_ = end_ = 0;
  if (buffer_.size() - begin_ < needed) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  while (end_ - begin_ < needed) {
    TRY_ASSIGN(const std::size_t count, receive(std::span(buffer_).subspan(end_)));
    if (count == 0) {
      const bool is_first = begin_ == end_;
      const Status ready = wait(POLLIN, is_first ? patience : silence_);
      if (!ready.ok() && is_first && !failure_.is_set() && ready.code() == Code::unavailable)
        return Error{Code::timed_out, ready.error().what};
      TRY(ready);
    }
    end_ += count;
    read_.fetch_add(count, std::memory_order_relaxed);
  }
  return {};
}

Result<Frame> Connection::read(Duration patience) {
  TRY(fill(wire::kHeaderBytes, patience));
  const std::span<const std::byte> head(buffer_.data() + begin_, wire::kHeaderBytes);
  TRY_ASSIGN(const wire::Header header, wire::decode_header(head.first<wire::kHeaderBytes>()));
  TRY(fill(wire::kHeaderBytes + header.bytes, silence_));
  const wire::Bytes body(buffer_.data() + begin_ + wire::kHeaderBytes, header.bytes);
  if (!wire::verify(header, body))
    return Error{Code::corrupt, "A frame from " + peer_ + " was changed on its way: its checksum is wrong."};
  begin_ += wire::kHeaderBytes + header.bytes;
  return Frame{header, body};
}

}  // namespace hf::engine
