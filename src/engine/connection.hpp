#pragma once
// Connections: the TCP connections of one motion between two hosts: one for control, which answers and keeps alive,
// some for pages, and, later, those of a tunnel. The source connects, the destination listens. Format: doc/formats.md
// "Page streams".
//
// Whoever connects must know the motion's token; with TLS both sides also show their certificates, and must be the
// hosts that they are expected to be. Every read and write has a deadline (`silence`), and Failure ends them all.
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.hpp"
#include "base/result.hpp"
#include "base/time.hpp"
#include "engine/guest_memory.hpp"
#include "sys/pki/pki.hpp"
#include "sys/process/unique_fd.hpp"

namespace hf::engine {

inline constexpr unsigned kDataStreamsMax = 8;
// One for each processor, at most kDataStreamsMax.
unsigned default_data_streams();

// off: never TLS. required: TLS or nothing. opportunistic: TLS where the other side can and may, else plain; it keeps
// listeners out, not those who change what passes: they can talk it down to plain.
enum class Encryption { off, opportunistic, required };
// "off", "opportunistic", "required"; Code::invalid for anything else.
Result<Encryption> encryption_named(const std::string& name);

struct ConnectionOptions {
  TaskId motion;
  VmId vm;
  std::string token;  // the motion's secret, at most 128 bytes; both sides have it from the motion's record
  HostId peer;        // the host at the other end; checked where TLS is used
  Encryption encryption = Encryption::required;
  std::optional<pki::Credentials> credentials;     // none: TLS is impossible
  bool pages = true;  // false: the memory goes through a tunnel, so control is the only connection here, and no blocks
  unsigned data_streams = default_data_streams();  // the source decides
  // A link that moves nothing for so long is broken. The other side is heard from each third of it at least.
  Duration silence = std::chrono::seconds(10);
};

// The first thing that went wrong with a motion's connections, or its cancellation. All threads that wait for one of
// them give up at once. Thread-safe; whoever uses it keeps it alive.
class Failure {
 public:
  Failure();
  Failure(const Failure&) = delete;
  Failure& operator=(const Failure&) = delete;
  // Only the first counts.
  void set(Error error);
  bool is_set() const;
  Status status() const;
  // Readable once set: for poll().
  int descriptor() const { return event_.get(); }

 private:
  mutable std::mutex mutex_;
  std::optional<Error> first_;
  process::UniqueFd event_;
};

class Connection;  // stream/connection.hpp

// What connect() and accept() give to a Sender or a Receiver. Move-only; closes the connections.
struct Connections {
  std::shared_ptr<Failure> failure;  // shared with the caller, who may set it to cancel
  std::unique_ptr<Connection> control;
  std::vector<std::unique_ptr<Connection>> data;
  bool encrypted = false;
  Duration silence{};

  Connections();
  Connections(Connections&&) noexcept;
  Connections& operator=(Connections&&) noexcept;
  ~Connections();
};

// Source. Code::unavailable: cannot be reached; denied: it is not the expected host, or it refused; its words follow.
Result<Connections> connect(const std::string& endpoint, const ConnectionOptions& options,
                            const std::vector<RamBlock>& blocks, std::shared_ptr<Failure> failure);

// Source: one more connection of the motion, for a channel of its tunnel (tunnel.hpp). `encrypted`: as the others are;
// Code::denied if it would be otherwise. `failure` must outlive it. Codes as above.
Result<std::unique_ptr<Connection>> connect_tunnel(const std::string& endpoint, const ConnectionOptions& options,
                                                   bool encrypted, const std::string& channel,
                                                   const Failure& failure);

// Destination: one listening socket, on the host's motion network.
class Listener {
 public:
  // "10.77.1.2:0": any free port; "10.77.1.2:7450-7481": the first free one of these. Code::no_room: none is.
  static Result<Listener> open(const std::string& address);
  // With the real port.
  const std::string& endpoint() const { return endpoint_; }
  // Waits until all connections of this motion are there. A stranger (wrong token, motion, certificate, version, or
  // silence) is told why, logged, and does not end the wait; Code::timed_out after `patience`, with the last
  // stranger's fault in the text.
  Result<Connections> accept(const ConnectionOptions& options, const std::vector<RamBlock>& blocks,
                             Duration patience, std::shared_ptr<Failure> failure);

  // Is asked about the channel of a tunnelled connection before it is welcome; its error is the refusal.
  using Join = std::function<Status(const std::string& channel)>;
  // Waits until the next tunnelled connection of this motion is there, for ever; strangers as above. Only `failure`
  // ends the wait, which must outlive the connection.
  Result<std::unique_ptr<Connection>> accept_tunnel(const ConnectionOptions& options, bool encrypted, const Join& join,
                                                    const Failure& failure);

 private:
  // Code::exists: it is in use.
  static Result<Listener> open_port(const std::string& address);
  process::UniqueFd socket_;
  std::string endpoint_;
};

}  // namespace hf::engine
