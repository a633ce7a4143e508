#pragma once
// Connection: one TCP connection of a motion, plain or TLS, that carries frames. Any number of threads may write, whole
// frames at a time; one may read. Nothing waits longer than `silence` for the link, nor at all once Failure is set.
#include <openssl/ssl.h>

#include <atomic>
#include <mutex>

#include "engine/connection.hpp"
#include "engine/wire/frame.hpp"
#include "sys/pki/openssl.hpp"

namespace hf::engine {

// A context with the motion's certificates, for one side; the host it expects outlives it.
using TlsContext = std::unique_ptr<SSL_CTX, pki::Deleter<SSL_CTX_free>>;

struct Frame {
  wire::Header header;
  wire::Bytes body;  // within the connection's buffer, until the next read
};

class Connection {
 public:
  // `failure` must outlive it. The socket becomes non-blocking, without delay of small writes.
  Connection(process::UniqueFd socket, const Failure& failure, Duration silence, std::string peer);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Before any TLS and any frame.
  Status write_plain(std::span<const std::byte> bytes);
  Status read_plain(std::span<std::byte> bytes);
  // Code::denied if the other side's certificate does not fit, or it refuses ours.
  Status start_tls(SSL_CTX* context, bool is_server);

  // A whole frame. Code::unavailable: the other side is gone, or takes nothing.
  Status write(wire::Bytes frame);
  // As much of a small frame as the link takes at once, even after Failure: the last words.
  void try_write(wire::Bytes frame);
  // The next whole frame, its checksum right. Code::timed_out: its first byte did not come within `patience`.
  Result<Frame> read(Duration patience);

  // Any thread. Both sides' reads and writes end.
  void shut_down();

  bool is_encrypted() const { return tls_ != nullptr; }
  void set_silence(Duration silence) { silence_ = silence; }
  const std::string& peer() const { return peer_; }
  // How long writers waited for the link, all together.
  Duration blocked() const { return Duration(blocked_ns_.load(std::memory_order_relaxed)); }
  // Bytes of frames.
  std::uint64_t bytes_written() const { return written_.load(std::memory_order_relaxed); }
  std::uint64_t bytes_read() const { return read_.load(std::memory_order_relaxed); }

 private:
  Status send_all(const std::byte* bytes, std::size_t count);
  // One attempt: how many bytes; 0: the link has none just now.
  Result<std::size_t> receive(std::span<std::byte> to);
  Result<std::size_t> receive_tls(std::span<std::byte> to);
  Status wait(short events, Duration patience) const;
  Error gone(const std::string& what) const;
  Status fill(std::size_t needed, Duration patience);
  Result<std::span<const std::byte>> encrypted(wire::Bytes frame);

  process::UniqueFd socket_;
  const Failure& failure_;
  Duration silence_;
  const std::string peer_;

  std::mutex write_mutex_;           // of writing, one frame after the other: what follows
  bool is_torn_ = false;             // a frame was not sent as a whole
  std::vector<std::byte> outgoing_;  // records on their way
  // Of tls_, which is for one thread at a time. Not held while the link is waited for: a writer that waits must not
  // stop the reader, which may be what the other side waits for.
  std::mutex tls_mutex_;
  std::vector<std::byte> records_;  // what TLS wants sent: many records go out with one system call
  std::unique_ptr<SSL, pki::Deleter<SSL_free>> tls_;

  std::vector<std::byte> buffer_;
  std::size_t begin_ = 0, end_ = 0;  // what was received and not yet used
  std::atomic<std::int64_t> blocked_ns_{0};
  std::atomic<std::uint64_t> written_{0}, read_{0};
};

}  // namespace hf::engine
