#pragma once
// Tunnel: byte streams of a motion between programs of its two hosts, beside the pages: each connection that one
// makes to a unix socket at the source becomes one to a unix socket at the destination, and what is written at one
// end is read at the other, both ways. Every connection belongs to a channel ("migration", "disk:root"), which names
// the two sockets. The bytes travel in frames over connections like those of the pages: same port, token,
// certificates, encryption and limits (connection.hpp). Format: doc/formats.md "Tunnel".
//
// A stream whose program closes it, or a half of it, ends at the other side too, and nothing else does. A connection
// between the hosts that breaks, a refusal, or hostile data ends the motion: it sets the Failure, and both programs
// find their sockets closed. A program that does not read holds up its own stream only, for as long as it likes;
// bytes wait in the sockets, not here. So only the motion's control connection, which must be kept alive meanwhile,
// notices a dead link.
//
// Threads: "hf-tunnel", which takes new connections in the order in which they come, and two for each stream,
// "hf-tun-N-out" and "hf-tun-N-in". Memory: 1.2 MiB a stream; kTunnelStreamsMax at once, what is more is closed.
// Thread-safe.
#include <map>
#include <memory>
#include <string>

#include "engine/connection.hpp"

namespace hf::engine {

inline constexpr unsigned kTunnelStreamsMax = 48;

struct TunnelOptions {
  ConnectionOptions connection;
  bool encrypted = true;               // as the motion's other connections are (Connections::encrypted)
  std::uint64_t bytes_per_second = 0;  // that this side sends, all streams together; 0: no limit
};

struct TunnelTraffic {
  std::uint64_t sent = 0, received = 0;  // bytes of frames
  unsigned streams = 0;                  // that there were so far
};

class Tunnel {
 public:
  // Ends all of it; sets `failure` if nothing has yet.
  virtual ~Tunnel() = default;
  virtual TunnelTraffic traffic() const = 0;
  // 0: no limit.
  virtual void limit(std::uint64_t bytes_per_second) = 0;
};

// Source.
class TunnelEntrance : public Tunnel {
 public:
  // `endpoint`: the destination's listener. It must have accepted the motion's other connections.
  static std::unique_ptr<TunnelEntrance> start(std::string endpoint, TunnelOptions options,
                                               std::shared_ptr<Failure> failure);
  // From now on the owner of this path's folder may connect to `path`. The socket goes with this object.
  virtual Status open(const std::string& channel, const std::string& path) = 0;
};

// Destination.
class TunnelExit : public Tunnel {
 public:
  // `channels`: to the sockets where their programs listen once the source's connect. Any other channel is refused.
  static std::unique_ptr<TunnelExit> start(Listener listener, TunnelOptions options,
                                           std::map<std::string, std::string> channels,
                                           std::shared_ptr<Failure> failure);
};

}  // namespace hf::engine
