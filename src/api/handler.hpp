#pragma once
// Handler: the REST API without sockets. A Request goes in, a Response comes out; server.hpp carries them
// over TLS. All state is in the Store, so every host serves every request; what only one host can do (its
// consoles, its guard) comes through HostServices, and a request for another host's console goes to that host
// through Peers. Thread-safe: handle() is called from many threads at once. Blocks for store calls and for
// forwarded requests.
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/operations.hpp"
#include "port/store.hpp"
#include "sys/pki/pki.hpp"

namespace hf::api {

struct Caller {
  pki::Role role = pki::Role::admin;
  std::string name;             // CN of the certificate
  std::string certificate_pem;  // what the caller showed
};

struct Request {
  std::string method;
  std::string path;  // decoded, without the query
  std::map<std::string, std::string> query;
  std::string body;
  std::string idempotency_key;  // header Idempotency-Key: the task id the caller wants
  std::string last_event_id;    // header Last-Event-ID
  std::string
      requested_by;        // header Holdfast-Requested-By: for whom a host forwards; believed from hosts only
  bool forwarded = false;  // header Holdfast-Forwarded: is not forwarded again
  Caller caller;
};

// A body that goes on: server-sent events, console output.
class Stream {
 public:
  virtual ~Stream() = default;
  // Waits at most half a second. Empty: nothing yet. nullopt: it has ended.
  virtual std::optional<std::string> next() = 0;
};

struct Response {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::unique_ptr<Stream> stream;  // instead of the body
};

Response error_response(const Error& error);

struct TimingRow {
  std::string name;  // "freeze_after"
  int milliseconds = 0;
  std::string meaning;
};

struct LocalStatus {
  std::string version;
  std::string guard;          // "renewing", "frozen", "absent"
  std::string guard_message;  // why, a sentence
  std::vector<std::string> frozen_vms;
  bool store_contact = false;
};

struct StoreInfo {
  std::string kind;                    // "sqlite", "etcd"
  std::vector<std::string> endpoints;  // etcd's
};

// What a joining host's own etcd member needs to start.
struct StoreMember {
  std::string
      initial_cluster;  // "host1=https://10.0.0.1:2380,..."; empty: the new host uses the members there are
};

// A folder of this host that is a datastore now.
struct MarkedDatastore {
  DatastoreId id;
  std::string warning;  // a sentence; empty: none
};

// What is local to this host. Called from many threads.
class HostServices {
 public:
  virtual ~HostServices() = default;
  virtual HostId here() = 0;
  // A connected stream socket; the caller closes it.
  virtual Result<int> open_console(const VmId& vm) = 0;
  virtual LocalStatus local_status() = 0;
  virtual std::vector<TimingRow> timing() = 0;
  virtual StoreInfo store_info() = 0;
  // The datastore whose marker stands at `path`; one is made if there is none. Code::not_found: no such folder;
  // Code::denied, no_room, timed_out: it cannot be written; then nothing was changed.
  virtual Result<MarkedDatastore> mark_datastore(const std::string& name, const std::string& path, bool shared) = 0;
  // A host joins. `peer_url` empty: it brings no store member of its own. Asking again with the same changes nothing.
  virtual Result<StoreMember> add_store_member(const std::string& host, const std::string& peer_url) = 0;
  // A host was removed; so is its member of the store, if it had one that is the cluster's own.
  virtual Status remove_store_member(const std::string& host) = 0;
};

// Sends a request to another host, as this host.
class Peers {
 public:
  virtual ~Peers() = default;
  virtual Result<Response> forward(const HostId& host, const std::string& address,
                                   const Request& request) = 0;
};

enum class Access { anyone, admins, hosts };

struct Route {
  std::string_view method;
  std::string_view path;  // "/v1/vms/{vm}/start"
  std::string_view id;    // stable, OpenAPI's operationId
  Access access = Access::anyone;
};
// All there is; doc/openapi.json is tested against it.
const std::vector<Route>& routes();

class Handler {
 public:
  // All must outlive this; `peers` may be null (then nothing is forwarded).
  Handler(Store& store, HostServices& services, Peers* peers, Operations::World world);
  ~Handler();
  Handler(const Handler&) = delete;
  Handler& operator=(const Handler&) = delete;

  Response handle(const Request& request);

 private:
  struct Inner;
  std::unique_ptr<Inner> inner_;
};

}  // namespace hf::api
