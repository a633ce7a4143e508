// Goal: doc/openapi.json says what the server does, no more and no less. Method: the route table and the JSON
// that is really produced are compared with the file, both ways.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "api/testing_host.hpp"
#include "sys/process/small_file.hpp"

namespace hf::api {
namespace {
using nlohmann::json;

class OpenApi : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto text = process::read_small_file(HF_SOURCE_DIR "/doc/openapi.json");
    ASSERT_TRUE(text.ok()) << text.error().what;
    doc_ = json::parse(*text);
    cluster_.store.put(record::key::kCaSecret, pki::encode_ca(ca_));
    cluster_.run_vm("web", "host1", 512);
    cluster_.run_vm("other", "host1", 512);
    auto full = cluster_.spec("full", 512);
    full.cdroms = {{"install", "shared:debian.iso"}};
    full.direct_kernel = vm::DirectKernel{"/boot/vmlinuz", "", ""};
    full.cloud_init = vm::CloudInit{"#cloud-config\n", "", ""};
    ASSERT_TRUE(cluster_.operations.create_vm(full, "", {"tester", {}}).ok());
    cluster_.finish(cluster_.operations.create_vm(cluster_.spec("off", 512), "", {"tester", {}}));
    cluster_.run_vm("moving", "host1", 512);
    cluster_.begin_motion("moving", TaskId("t-moving"));
    record::EventRecord event;
    event.severity = "info";
    emit(cluster_.store, event, 1);
  }
  json resolve(const json& schema) const {
    if (schema.contains("oneOf")) return resolve(schema["oneOf"][0]);
    if (!schema.contains("$ref")) return schema;
    const std::string name = schema["$ref"];
    return doc_.at("components").at("schemas").at(name.substr(name.rfind('/') + 1));
  }
  void compare(const json& value, const json& reference, const std::string& where) const {
    const json schema = resolve(reference);
    if (value.is_null()) return;
    if (value.is_array()) {
      ASSERT_TRUE(schema.contains("items")) << where;
      for (const auto& item : value) compare(item, schema["items"], where + "[]");
      return;
    }
    if (!value.is_object() || schema.contains("additionalProperties")) return;
    std::set<std::string> described, real;
    for (const auto& [name, property] : schema.at("properties").items()) described.insert(name);
    for (const auto& [name, item] : value.items()) real.insert(name);
    EXPECT_EQ(described, real) << where;
    for (const auto& name : real) {
      if (described.contains(name)) compare(value[name], schema["properties"][name], where + "." + name);
    }
  }
  Response ask(const std::string& method, const std::string& path, const std::string& body, pki::Role role) {
    Request request;
    request.method = method;
    request.path = path;
    request.body = body;
    request.caller = {role, "host3", host_.credentials(role, "host3").own.certificate_pem};
    return host_.handler.handle(request);
  }
  TestingCluster cluster_;
  pki::KeyPair ca_ = *pki::make_ca("test");
  TestingHost host_{cluster_, ca_, "host1"};
  json doc_;
};

TEST_F(OpenApi, routes_and_paths_are_the_same) {
  std::set<std::string> served, described;
  for (const auto& route : routes()) {
    served.insert(std::string(route.method) + " " + std::string(route.path) + " " + std::string(route.id));
  }
  for (const auto& [path, methods] : doc_.at("paths").items()) {
    for (const auto& [method, operation] : methods.items()) {
      std::string upper = method;
      std::transform(upper.begin(), upper.end(), upper.begin(),
                     [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
      described.insert(upper + " " + path + " " + operation.at("operationId").get<std::string>());
    }
  }
  EXPECT_EQ(served, described);
}

TEST_F(OpenApi, answers_have_the_described_properties) {
  struct Case {
    std::string method, path, pattern, body;
    pki::Role role = pki::Role::admin;
  };
  const std::string spec = vm::to_json(cluster_.spec("new", 512));
  const std::string same = vm::to_json(show_vm(cluster_.store, "web")->vm.spec);
  cluster_.store.erase(record::key::kSessions + "host2");
  const std::vector<Case> cases = {
      {"GET", "/v1/cluster", "/v1/cluster", ""},
      {"GET", "/v1/cluster/evc", "/v1/cluster/evc", ""},
      {"PUT", "/v1/cluster/evc", "/v1/cluster/evc", R"({"baseline":"off"})"},
      {"GET", "/v1/hosts", "/v1/hosts", ""},
      {"GET", "/v1/hosts/host1", "/v1/hosts/{host}", ""},
      {"GET", "/v1/hosts/host1/local", "/v1/hosts/{host}/local", ""},
      {"GET", "/v1/datastores", "/v1/datastores", ""},
      {"POST", "/v1/datastores", "/v1/datastores", R"({"name":"a","paths":{"*":"/a"}})"},
      {"GET", "/v1/datastores/shared", "/v1/datastores/{datastore}", ""},
      {"GET", "/v1/networks", "/v1/networks", ""},
      {"POST", "/v1/networks", "/v1/networks", R"({"name":"a","bridge":"br1"})"},
      {"GET", "/v1/networks/lan", "/v1/networks/{network}", ""},
      {"GET", "/v1/vms", "/v1/vms", ""},
      {"GET", "/v1/vms/web", "/v1/vms/{vm}", ""},
      {"GET", "/v1/vms/web/spec", "/v1/vms/{vm}/spec", ""},
      {"PUT", "/v1/vms/web", "/v1/vms/{vm}", R"({"spec":)" + same + "}"},
      {"POST", "/v1/vms", "/v1/vms", R"({"spec":)" + spec + "}"},
      {"POST", "/v1/vms/web/migrate", "/v1/vms/{vm}/migrate", R"({"dry_run":true})"},
      {"POST", "/v1/vms/web/stop", "/v1/vms/{vm}/stop", R"({"timeout_seconds":3})"},
      {"POST", "/v1/vms/other/migrate", "/v1/vms/{vm}/migrate", R"({"max_stop_ms":50})"},
      {"POST", "/v1/tasks/t-moving/cancel", "/v1/tasks/{task}/cancel", ""},
      {"POST", "/v1/vms/off/resize", "/v1/vms/{vm}/resize", R"({"disk":"root","size_mib":2048})"},
      {"GET", "/v1/tasks", "/v1/tasks", ""},
      {"GET", "/v1/events", "/v1/events", ""},
      {"GET", "/v1/ha", "/v1/ha", ""},
      {"GET", "/v1/ha/timing", "/v1/ha/timing", ""},
      {"POST", "/v1/invites", "/v1/invites", R"({"host":"host3"})"},
      {"POST", "/v1/members", "/v1/members", "{}", pki::Role::host},
      {"PUT", "/v1/hosts/host2/maintenance", "/v1/hosts/{host}/maintenance", ""},
      {"GET", "/v1/hosts", "/v1/hosts", ""},
      {"DELETE", "/v1/hosts/host2/maintenance", "/v1/hosts/{host}/maintenance", ""},
      {"DELETE", "/v1/hosts/host2", "/v1/hosts/{host}", ""},
  };
  for (const auto& one : cases) {
    const std::string where = one.method + " " + one.path;
    const Response response = ask(one.method, one.path, one.body, one.role);
    ASSERT_LT(response.status, 300) << where << response.body;
    std::string method = one.method;
    for (char& c : method) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    const json operation = doc_["paths"][one.pattern][method];
    const std::string status = std::to_string(response.status);
    ASSERT_TRUE(operation["responses"].contains(status)) << where << " " << status;
    compare(json::parse(response.body),
            operation["responses"][status]["content"]["application/json"]["schema"], where);
  }
  const Response error = ask("GET", "/v1/vms/none", "", pki::Role::admin);
  compare(json::parse(error.body), doc_["components"]["schemas"]["Error"], "error");
}

TEST_F(OpenApi, described_request_fields_are_known_and_others_are_refused) {
  for (const auto& [path, methods] : doc_.at("paths").items()) {
    for (const auto& [method, operation] : methods.items()) {
      if (!operation.contains("requestBody") ||
          !operation["requestBody"]["content"].contains("application/json"))
        continue;
      std::string upper = method == "put" ? "PUT" : "POST";
      std::string real = path;
      if (const auto at = real.find("{vm}"); at != std::string::npos) real.replace(at, 4, "web");
      const bool host = real == "/v1/members";
      const Response response =
          ask(upper, real, R"({"no_such_field":1})", host ? pki::Role::host : pki::Role::admin);
      EXPECT_EQ(response.status, 400) << upper << real << response.body;
      const json schema = resolve(operation["requestBody"]["content"]["application/json"]["schema"]);
      for (const auto& [name, property] : schema["properties"].items()) {
        const Response answer = ask(upper, real, json{{name, json::array({json::object()})}}.dump(),
                                    host ? pki::Role::host : pki::Role::admin);
        EXPECT_EQ(answer.body.find("is not known here"), std::string::npos) << name << answer.body;
      }
    }
  }
}

TEST_F(OpenApi, hostile_requests_are_refused_politely) {
  const std::vector<std::string> bodies = {
      "", "[", "[]", "1", R"({"spec":1})", R"({"spec":{"name":1}})", R"({"toml":"x"})", R"({"paths":[]})"};
  for (const auto& route : routes()) {
    for (const auto& body : bodies) {
      const Response response =
          ask(std::string(route.method), std::string(route.path), body, pki::Role::admin);
      if (!response.stream) {
        EXPECT_TRUE(json::accept(response.body)) << route.path << response.body;
      }
      EXPECT_NE(response.status, 500) << route.path << " " << body << response.body;
    }
  }
  EXPECT_EQ(ask("GET", "/v1/nothing", "", pki::Role::admin).status, 404);
  EXPECT_EQ(ask("PATCH", "/v1/vms", "", pki::Role::admin).status, 400);
}

TEST_F(OpenApi, a_body_that_would_overflow_the_stack_is_refused) {
  const std::size_t levels = kBodyBytesMax / 4;
  const std::string deep = std::string(levels, '[') + std::string(levels, ']');
  const Response response = ask("POST", "/v1/vms", "{\"spec\":{\"name\":" + deep + "}}", pki::Role::admin);
  EXPECT_EQ(response.status, 400);
  EXPECT_NE(response.body.find("has more than 256 levels"), std::string::npos) << response.body;
}

}  // namespace
}  // namespace hf::api
