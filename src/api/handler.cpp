#include "api/handler.hpp"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "api/body.hpp"
#include "api/streams.hpp"
#include "api/to_json.hpp"
#include "core/vm/spec_toml.hpp"

namespace hf::api {
namespace {
using nlohmann::json;
using record::TaskRecord;

constexpr std::size_t kListDefault = 100;
constexpr std::int64_t kListMax = 10000;

struct Call {
  const Request& request;
  std::map<std::string, std::string> names;  // what stands for {vm}, {host}, ...
  Actor by;
};

Response json_response(std::string body, int status = 200) {
  return {status, "application/json", std::move(body), nullptr};
}

Result<std::size_t> limit_of(const Request& request) {
  const auto found = request.query.find("limit");
  if (found == request.query.end()) return kListDefault;
  std::int64_t number = 0;
  const std::string& text = found->second;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (problem != std::errc() || end != text.data() + text.size() || number < 1 || number > kListMax) {
    return Error{Code::invalid, "The parameter \"limit\" is a number from 1 to 10000."};
  }
  return static_cast<std::size_t>(number);
}

std::string query(const Request& request, const char* name) {
  const auto found = request.query.find(name);
  return found == request.query.end() ? "" : found->second;
}

std::vector<std::string_view> split(std::string_view path) {
  std::vector<std::string_view> parts;
  while (!path.empty()) {
    const auto slash = path.find('/');
    parts.push_back(path.substr(0, slash));
    path = slash == std::string_view::npos ? std::string_view() : path.substr(slash + 1);
  }
  return parts;
}

// Does the path fit the pattern? Then `names` has what stands in its braces.
bool fits(std::string_view pattern, std::string_view path, std::map<std::string, std::string>& names) {
  const auto wanted = split(pattern);
  const auto given = split(path);
  if (wanted.size() != given.size()) return false;
  std::map<std::string, std::string> found;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const bool name = wanted[i].starts_with('{');
    if (name && given[i].empty()) return false;
    if (name)
      found[std::string(wanted[i].substr(1, wanted[i].size() - 2))] = given[i];
    else if (wanted[i] != given[i])
      return false;
  }
  names = std::move(found);
  return true;
}

// Empty: the default.
Result<record::Encryption> encryption_named(const std::string& name) {
  if (name.empty()) return record::MotionLimits{}.encryption;
  for (const auto one : {record::Encryption::required, record::Encryption::opportunistic, record::Encryption::off}) {
    if (name == record::name_of(one)) return one;
  }
  return Error{Code::invalid, "The field \"encryption\" must be required, opportunistic or off."};
}

// Empty: the default.
Result<record::Engine> engine_named(const std::string& name) {
  if (name.empty()) return record::MotionLimits{}.engine;
  for (const auto one : {record::Engine::automatic, record::Engine::holdfast, record::Engine::qemu}) {
    if (name == record::name_of(one)) return one;
  }
  return Error{Code::invalid, "The field \"engine\" must be auto, holdfast or qemu."};
}

Result<Response> task_response(const Result<TaskRecord>& task) {
  if (!task.ok()) return task.error();
  return json_response(to_json(*task), 202);
}

template <class Item>
Result<Response> list_response(const std::string& name, const Result<std::vector<Item>>& items) {
  if (!items.ok()) return items.error();
  return json_response(list_json(name, *items));
}

template <class Item>
Result<Response> item_response(const Result<Item>& item, int status = 200) {
  if (!item.ok()) return item.error();
  return json_response(to_json(*item), status);
}
}  // namespace

Response error_response(const Error& error) {
  const json j{{"error", {{"code", info(error.code).name}, {"message", error.what}}}};
  return json_response(j.dump(-1, ' ', false, json::error_handler_t::replace), info(error.code).http_status);
}

const std::vector<Route>& routes() {
  static const std::vector<Route> kRoutes = {
      {"GET", "/v1/cluster", "show_cluster"},
      {"GET", "/v1/cluster/evc", "show_evc"},
      {"PUT", "/v1/cluster/evc", "set_evc", Access::admins},
      {"GET", "/v1/hosts", "list_hosts"},
      {"GET", "/v1/hosts/{host}", "show_host"},
      {"DELETE", "/v1/hosts/{host}", "remove_host", Access::admins},
      {"PUT", "/v1/hosts/{host}/maintenance", "enter_maintenance"},
      {"DELETE", "/v1/hosts/{host}/maintenance", "leave_maintenance"},
      {"GET", "/v1/hosts/{host}/local", "show_host_local"},
      {"GET", "/v1/datastores", "list_datastores"},
      {"POST", "/v1/datastores", "add_datastore"},
      {"GET", "/v1/datastores/{datastore}", "show_datastore"},
      {"GET", "/v1/networks", "list_networks"},
      {"POST", "/v1/networks", "add_network"},
      {"GET", "/v1/networks/{network}", "show_network"},
      {"GET", "/v1/vms", "list_vms"},
      {"POST", "/v1/vms", "create_vm"},
      {"GET", "/v1/vms/{vm}", "show_vm"},
      {"PUT", "/v1/vms/{vm}", "edit_vm"},
      {"DELETE", "/v1/vms/{vm}", "delete_vm"},
      {"GET", "/v1/vms/{vm}/spec", "show_vm_spec"},
      {"POST", "/v1/vms/{vm}/start", "start_vm"},
      {"POST", "/v1/vms/{vm}/stop", "stop_vm"},
      {"POST", "/v1/vms/{vm}/kill", "kill_vm"},
      {"POST", "/v1/vms/{vm}/reset", "reset_vm"},
      {"POST", "/v1/vms/{vm}/resize", "resize_vm"},
      {"POST", "/v1/vms/{vm}/migrate", "migrate_vm"},
      {"GET", "/v1/vms/{vm}/console", "read_console"},
      {"POST", "/v1/vms/{vm}/console", "write_console"},
      {"GET", "/v1/tasks", "list_tasks"},
      {"GET", "/v1/tasks/{task}", "show_task"},
      {"POST", "/v1/tasks/{task}/cancel", "cancel_task"},
      {"GET", "/v1/events", "list_events"},
      {"GET", "/v1/ha", "show_ha"},
      {"GET", "/v1/ha/timing", "show_ha_timing"},
      {"POST", "/v1/invites", "make_invite", Access::admins},
      {"POST", "/v1/members", "add_member", Access::hosts},
  };
  return kRoutes;
}

struct Handler::Inner {
  Inner(Store& a_store, HostServices& a_services, Peers* some_peers, Operations::World a_world)
      : store(a_store),
        services(a_services),
        peers(some_peers),
        world(std::move(a_world)),
        operations(a_store, world) {}

  Result<Response> run(const std::string_view id, const Call& call);
  Result<Response> read(const std::string_view id, const Call& call);
  Result<Response> events(const Call& call);
  Result<Response> command(const std::string_view id, const Call& call);
  Result<Response> create(const Call& call);
  Result<Response> edit(const Call& call);
  Result<Response> migrate(const Call& call);
  Result<Response> cancel(const Call& call);
  Result<Response> add_datastore(const Call& call);
  Result<Response> add_network(const Call& call);
  Result<Response> console(const Call& call);
  Result<Response> local(const Call& call);
  Result<Response> forward(const HostId& host, const Call& call);
  Result<Response> spec(const Call& call);
  Result<Response> ha();
  Result<Response> set_evc(const Call& call);
  Result<Response> maintenance(const Call& call, bool enter);
  Result<Response> remove_host(const Call& call);
  Result<Response> make_invite(const Call& call);
  Result<Response> add_member(const Call& call);

  Store& store;
  HostServices& services;
  Peers* peers;
  Operations::World world;
  Operations operations;
  StreamLimit limit;
  Consoles consoles{services};
};

Result<Response> Handler::Inner::read(const std::string_view id, const Call& call) {
  const auto name = [&call](const char* key) { return call.names.at(key); };
  if (id == "show_cluster") return item_response(show_cluster(store));
  if (id == "show_evc") return item_response(show_evc(store));
  if (id == "list_hosts") return list_response("hosts", list_hosts(store));
  if (id == "show_host") return item_response(show_host(store, name("host")));
  if (id == "show_host_local") return local(call);
  if (id == "list_datastores") return list_response("datastores", list_datastores(store));
  if (id == "show_datastore") return item_response(show_datastore(store, name("datastore")));
  if (id == "list_networks") return list_response("networks", list_networks(store));
  if (id == "show_network") return item_response(show_network(store, name("network")));
  if (id == "list_vms") return list_response("vms", list_vms(store));
  if (id == "show_vm") return item_response(show_vm(store, name("vm")));
  if (id == "show_vm_spec") return spec(call);
  if (id == "show_task") return item_response(show_task(store, name("task")));
  if (id == "list_events") return events(call);
  if (id == "show_ha") return ha();
  if (id == "show_ha_timing") return json_response(to_json(services.timing()));
  TRY_ASSIGN(const std::size_t most, limit_of(call.request));
  return list_response("tasks", list_tasks(store, most));
}

Result<Response> Handler::Inner::run(const std::string_view id, const Call& call) {
  if (id == "read_console" || id == "write_console") return console(call);
  if (call.request.method == "GET") return read(id, call);
  if (id == "create_vm") return create(call);
  if (id == "edit_vm") return edit(call);
  if (id == "migrate_vm") return migrate(call);
  if (id == "cancel_task") return cancel(call);
  if (id == "enter_maintenance" || id == "leave_maintenance") return maintenance(call, id == "enter_maintenance");
  if (id == "set_evc") return set_evc(call);
  if (id == "add_datastore") return add_datastore(call);
  if (id == "add_network") return add_network(call);
  if (id == "remove_host") return remove_host(call);
  if (id == "make_invite") return make_invite(call);
  if (id == "add_member") return add_member(call);
  return command(id, call);
}

Result<Response> Handler::Inner::command(const std::string_view id, const Call& call) {
  const std::string vm = call.names.at("vm");
  Body body(call.request.body);
  const std::string host = id == "start_vm" ? body.text("host", false) : "";
  const auto timeout = id == "stop_vm" ? body.number("timeout_seconds", 0, 86400) : 0;
  const std::string disk = id == "resize_vm" ? body.text("disk", true) : "";
  const auto mib = id == "resize_vm" ? body.number("size_mib", 1, INT64_MAX >> 20U) : 0;
  TRY(body.finish());
  if (id == "resize_vm")
    return task_response(operations.resize_vm(vm, disk, static_cast<std::uint64_t>(mib) << 20U, call.by));
  if (id == "start_vm") return task_response(operations.start_vm(vm, host, call.by));
  if (id == "stop_vm") return task_response(operations.stop_vm(vm, static_cast<int>(timeout), call.by));
  if (id == "kill_vm") return task_response(operations.kill_vm(vm, call.by));
  if (id == "reset_vm") return task_response(operations.reset_vm(vm, call.by));
  return task_response(operations.delete_vm(vm, call.by));
}

Result<Response> Handler::Inner::create(const Call& call) {
  Body body(call.request.body);
  const std::string host = body.text("host", false);
  TRY_ASSIGN(const vm::VmSpec wanted, body.spec());
  TRY(body.finish());
  return task_response(operations.create_vm(wanted, host, call.by));
}

Result<Response> Handler::Inner::edit(const Call& call) {
  Body body(call.request.body);
  const auto generation = body.number("generation", 0, INT64_MAX);
  TRY_ASSIGN(const vm::VmSpec wanted, body.spec());
  TRY(body.finish());
  return item_response(
      operations.edit_vm(call.names.at("vm"), wanted, static_cast<std::uint64_t>(generation)));
}

Result<Response> Handler::Inner::migrate(const Call& call) {
  const std::string& vm = call.names.at("vm");
  Body body(call.request.body);
  Migration wanted;
  wanted.to = HostId(body.text("to", false));
  wanted.limits.bandwidth_mbit = static_cast<std::uint64_t>(body.number("bandwidth_mbit", 0, kBandwidthMbitMax));
  wanted.limits.max_stop_ms = static_cast<int>(body.number("max_stop_ms", 0, kMaxStopMsMax));
  const std::string encryption = body.text("encryption", false), engine = body.text("engine", false);
  wanted.datastore = body.text("datastore", false);
  wanted.disk_format = body.text("disk_format", false);
  wanted.disk = body.text("disk", false);
  const bool dry_run = body.flag("dry_run", false);
  TRY(body.finish());
  TRY_ASSIGN(wanted.limits.encryption, encryption_named(encryption));
  TRY_ASSIGN(wanted.limits.engine, engine_named(engine));
  if (dry_run) return item_response(operations.check_migration(vm, wanted));
  return task_response(operations.migrate_vm(vm, wanted, call.by));
}

Result<Response> Handler::Inner::cancel(const Call& call) {
  TRY(Body(call.request.body).finish());
  return item_response(operations.cancel_task(call.names.at("task")));
}

// Found by its content: the host that serves the request has it mounted, and its marker says which one it is.
Result<Response> Handler::Inner::add_datastore(const Call& call) {
  Body body(call.request.body);
  record::DatastoreRecord wanted;
  wanted.name = body.text("name", true);
  wanted.shared = body.flag("shared", true);
  wanted.paths = body.text_map("paths");
  TRY(body.finish());
  TRY(Operations::check_datastore(wanted));
  const std::string here = services.here().text;
  if (!wanted.shared && wanted.paths.contains("*")) {
    wanted.paths[here] = wanted.paths.at("*");
    wanted.paths.erase("*");
  }
  if (!wanted.shared && wanted.paths.size() != 1) {
    return Error{Code::invalid,
                 "A local datastore belongs to one host: add one for each host, under names of their own."};
  }
  auto path = wanted.paths.find(here);
  if (path == wanted.paths.end()) path = wanted.paths.find("*");
  if (path == wanted.paths.end()) return forward(HostId(wanted.paths.begin()->first), call);
  std::string warning;
  TRY_ASSIGN(const auto known, list_datastores(store));
  const bool taken = std::any_of(known.begin(), known.end(), [&](const auto& one) { return one.name == wanted.name; });
  if (!taken) {
    TRY_ASSIGN(const MarkedDatastore marked, services.mark_datastore(wanted.name, path->second, wanted.shared));
    wanted.id = marked.id;
    warning = marked.warning;
  }
  TRY_ASSIGN(const auto added, operations.add_datastore(wanted));
  json answer = json::parse(to_json(added));
  answer["warning"] = warning;
  return json_response(answer.dump(-1, ' ', false, json::error_handler_t::replace), 201);
}

Result<Response> Handler::Inner::add_network(const Call& call) {
  Body body(call.request.body);
  record::NetworkRecord wanted;
  wanted.name = body.text("name", true);
  wanted.bridge = body.text("bridge", true);
  wanted.vlan = static_cast<int>(body.number("vlan", 0, 4094));
  TRY(body.finish());
  return item_response(operations.add_network(wanted), 201);
}

Result<Response> Handler::Inner::events(const Call& call) {
  std::string after = query(call.request, "after");
  if (!call.request.last_event_id.empty()) after = call.request.last_event_id;
  const std::string follow = query(call.request, "follow");
  if (follow == "1" || follow == "true") {
    auto place = limit.take();
    if (!place) return Error{Code::unavailable, "Too many streams are open on this host; try another host."};
    Response response{200, "text/event-stream", "", nullptr};
    TRY_ASSIGN(response.stream, follow_events(store, after, std::move(place)));
    return response;
  }
  TRY_ASSIGN(const std::size_t most, limit_of(call.request));
  return list_response("events", list_events(store, after, most));
}

Result<Response> Handler::Inner::forward(const HostId& host, const Call& call) {
  if (call.request.forwarded || peers == nullptr) {
    return Error{Code::unavailable,
                 "Host " + services.here().text + " cannot answer for host " + host.text + "; try again."};
  }
  TRY_ASSIGN(const auto target, show_host(store, host.text));
  Request request = call.request;
  request.forwarded = true;
  request.requested_by = call.by.who;
  return peers->forward(host, target.host.api_address, request);
}

Result<Response> Handler::Inner::console(const Call& call) {
  TRY_ASSIGN(const VmView view, show_vm(store, call.names.at("vm")));
  const std::string& name = view.vm.spec.name;
  if (!view.owner || view.owner->phase != record::OwnerRecord::Phase::claimed) {
    return Error{Code::conflict,
                 "VM " + name + " is not running: start it with `holdfast vm start " + name + "`."};
  }
  if (view.owner->host != services.here()) return forward(view.owner->host, call);
  if (call.request.method == "POST") {
    TRY(consoles.write(view.vm.id, name, call.request.body));
    return json_response("{}");
  }
  auto place = limit.take();
  if (!place) return Error{Code::unavailable, "Too many streams are open on this host; close one first."};
  Response response{200, "application/octet-stream", "", nullptr};
  TRY_ASSIGN(response.stream, consoles.attach(view.vm.id, name, std::move(place)));
  return response;
}

Result<Response> Handler::Inner::local(const Call& call) {
  const HostId host(call.names.at("host"));
  if (host != services.here()) return forward(host, call);
  return json_response(to_json(services.local_status()));
}

Result<Response> Handler::Inner::spec(const Call& call) {
  TRY_ASSIGN(const VmView view, show_vm(store, call.names.at("vm")));
  json j{{"name", view.vm.spec.name}, {"generation", view.vm.generation}};
  j["spec"] = json::parse(vm::to_json(view.vm.spec));
  j["toml"] = vm::to_toml(view.vm.spec);
  return json_response(j.dump(-1, ' ', false, json::error_handler_t::replace));
}

Result<Response> Handler::Inner::ha() {
  TRY_ASSIGN(const ClusterView cluster, show_cluster(store));
  TRY_ASSIGN(const auto vms, list_vms(store));
  json list = json::array();
  for (const auto& view : vms) {
    const json spec = json::parse(vm::to_json(view.vm.spec));
    list.push_back({{"vm", view.vm.spec.name},
                    {"priority", spec.at("ha").at("priority")},
                    {"protected", view.vm.spec.is_protected() && view.vm.desired == record::Desired::running},
                    {"desired", record::name_of(view.vm.desired)},
                    {"host", view.owner && is_owned(*view.owner) ? view.owner->host.text : ""},
                    {"state", view.status ? record::name_of(view.status->state) : "stopped"},
                    {"message", view.status ? view.status->message : ""}});
  }
  const json j{{"leader", cluster.leader},
               {"hosts", cluster.hosts},
               {"hosts_connected", cluster.hosts_connected},
               {"heartbeat_ms", cluster.cluster.heartbeat_ms},
               {"vms", list}};
  return json_response(j.dump(-1, ' ', false, json::error_handler_t::replace));
}

Result<Response> Handler::Inner::set_evc(const Call& call) {
  Body body(call.request.body);
  const std::string wanted = body.text("baseline", true);
  TRY(body.finish());
  TRY_ASSIGN(const EvcView before, show_evc(store));
  TRY_ASSIGN(const EvcView after, operations.set_evc(wanted));
  if (before.told.model != after.told.model) {
    record::EventRecord event;
    event.severity = "info";
    event.kind = "cluster.evc";
    event.host = services.here();
    event.text = after.told.model.empty() ? "The cluster has no CPU baseline any more, by " + call.by.who + "."
                                          : "The cluster's CPU baseline is " + after.told.model + ", by " +
                                                call.by.who + ".";
    emit(store, event, world.now());
  }
  return json_response(to_json(after));
}

Result<Response> Handler::Inner::maintenance(const Call& call, bool enter) {
  const std::string& host = call.names.at("host");
  TRY(Body(call.request.body).finish());
  TRY_ASSIGN(const HostView before, show_host(store, host));
  TRY_ASSIGN(const HostView after,
             enter ? operations.enter_maintenance(host, call.by) : operations.leave_maintenance(host));
  if (before.maintenance.has_value() == after.maintenance.has_value()) return json_response(to_json(after));
  record::EventRecord event;
  event.severity = "info";
  event.kind = enter ? "host.maintenance.enter" : "host.maintenance.leave";
  event.host = services.here();
  event.subject = host;
  const char* what = enter ? " is to enter maintenance, asked for by " : " was taken out of maintenance by ";
  event.text = "Host " + host + what + call.by.who + ".";
  emit(store, event, world.now());
  return json_response(to_json(after));
}

// The inventory first: from then on the host is refused. Asked again, the rest is done again.
Result<Response> Handler::Inner::remove_host(const Call& call) {
  const std::string& host = call.names.at("host");
  TRY(operations.remove_host(host));
  if (const Status member = services.remove_store_member(host); !member.ok()) {
    return because("Host " + host + " was removed, but not yet its member of the store: run the command again",
                   member.error());
  }
  record::EventRecord event;
  event.severity = "info";
  event.kind = "host.removed";
  event.host = services.here();
  event.subject = host;
  event.text = "Host " + host + " was removed from the cluster by " + call.by.who + ".";
  emit(store, event, world.now());
  return json_response(json{{"host", host}}.dump());
}

Result<Response> Handler::Inner::make_invite(const Call& call) {
  Body body(call.request.body);
  pki::IssueRequest request;
  request.name = body.text("host", true);
  request.addresses = body.texts("addresses");
  request.validity = std::chrono::hours(pki::kInviteHours);
  TRY(body.finish());
  TRY(check_name("host", request.name));
  const StoreInfo store_info = services.store_info();
  if (store_info.kind == "sqlite") {
    return Error{Code::unsupported,
                 "This cluster keeps its store in a file of one host, so no other host can join: run "
                 "`holdfast cluster grow` on it first."};
  }
  TRY_ASSIGN(const Entry secret, store.get(record::key::kCaSecret));
  TRY_ASSIGN(const pki::KeyPair ca, pki::decode_ca(secret.value));
  TRY_ASSIGN(const ClusterView cluster, show_cluster(store));
  pki::Invite invite;
  invite.cluster_id = cluster.cluster.id;
  invite.cluster_name = cluster.cluster.name;
  invite.host = request.name;
  invite.credentials.ca_pem = ca.certificate_pem;
  TRY_ASSIGN(invite.credentials.own, pki::issue(ca, request));
  TRY(operations.readmit_host(invite.host, invite.credentials.own.certificate_pem));
  TRY_ASSIGN(const auto hosts, list_hosts(store));
  for (const auto& host : hosts) invite.endpoints.push_back(host.host.api_address);
  invite.store_kind = store_info.kind;
  invite.store_endpoints = store_info.endpoints;
  invite.expires = world.now() + std::chrono::milliseconds(request.validity).count();
  return json_response(
      json{{"host", invite.host}, {"invite", pki::encode(invite)}, {"expires", invite.expires}}.dump(), 201);
}

// The joining host shows the certificate of its invite and gets the lasting one, for the same key.
Result<Response> Handler::Inner::add_member(const Call& call) {
  Body body(call.request.body);
  const auto addresses = body.texts("addresses");
  const std::string peer_url = body.text("store_peer_url", false);
  TRY(body.finish());
  const std::string& host = call.request.caller.name;
  TRY_ASSIGN(const Entry secret, store.get(record::key::kCaSecret));
  TRY_ASSIGN(const pki::KeyPair ca, pki::decode_ca(secret.value));
  const pki::IssueRequest request{pki::Role::host, host, addresses, std::chrono::hours(24 * pki::kHostDays)};
  TRY_ASSIGN(const std::string certificate, pki::reissue(ca, call.request.caller.certificate_pem, request));
  TRY_ASSIGN(const StoreMember member, services.add_store_member(host, peer_url));
  record::EventRecord event;
  event.severity = "info";
  event.kind = "host.joined";
  event.host = services.here();
  event.subject = host;
  event.text = "Host " + host + " joined the cluster.";
  emit(store, event, world.now());
  const json j{{"host", host}, {"certificate", certificate}, {"initial_cluster", member.initial_cluster}};
  return json_response(j.dump(), 201);
}

Handler::Handler(Store& store, HostServices& services, Peers* peers, Operations::World world)
    : inner_(std::make_unique<Inner>(store, services, peers, std::move(world))) {}
Handler::~Handler() = default;

Response Handler::handle(const Request& request) {
  const Route* route = nullptr;
  bool path_known = false;
  Call call{request, {}, {}};
  for (const auto& one : routes()) {
    std::map<std::string, std::string> names;
    if (!fits(one.path, request.path, names)) continue;
    path_known = true;
    if (one.method != request.method) continue;
    route = &one;
    call.names = std::move(names);
    break;
  }
  if (route == nullptr) {
    return error_response({path_known ? Code::invalid : Code::not_found,
                           path_known
                               ? "The method " + request.method.substr(0, 16) + " is not possible here."
                               : "There is nothing at this path; doc/openapi.json lists what there is."});
  }
  const bool host = request.caller.role == pki::Role::host;
  if ((route->access == Access::admins && host) || (route->access == Access::hosts && !host)) {
    return error_response(
        {Code::denied, host ? "Only an administrator may do this." : "Only a host may do this."});
  }
  if (host) {
    const Status known = check_not_removed(inner_->store, request.caller.name, request.caller.certificate_pem);
    // Without the store nothing is changed here; what this host alone knows is told all the same.
    if (!known.ok() && known.code() == Code::denied) return error_response(known.error());
  }
  if (!request.idempotency_key.empty() && !check_name("task", request.idempotency_key).ok()) {
    return error_response({Code::invalid, "An Idempotency-Key has 1 to 63 of a-z, 0-9 and -."});
  }
  call.by.task = TaskId(request.idempotency_key);
  call.by.who = host && !request.requested_by.empty() ? request.requested_by : request.caller.name;
  try {
    auto response = inner_->run(route->id, call);
    return response.ok() ? std::move(*response) : error_response(response.error());
  } catch (const std::exception& problem) {  // JSON of hostile input: the one place where a library may throw
    return error_response({Code::failed, std::string("The request failed: ") + problem.what() + "."});
  }
}

}  // namespace hf::api
