// Goal: only certificates of the cluster's CA with a role get an answer; requests, streams and forwarding
// work over real TLS; a client goes to the next host. Method: servers on loopback over a store in memory.
#include "api/server.hpp"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "api/testing_host.hpp"
#include "sys/process/run.hpp"
#include "sys/process/unique_fd.hpp"

namespace hf::api {
namespace {
using nlohmann::json;

class ServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const Status started = host_.start();
    ASSERT_TRUE(started.ok()) << started.error().what;
    cluster_.store.put(record::key::kCaSecret, pki::encode_ca(ca_));
  }
  Client client(pki::Role role = pki::Role::admin, const std::string& name = "tester") {
    return Client({{host_.address()}, host_.credentials(role, name), "", 10s});
  }
  Request get(const std::string& path) {
    Request request;
    request.method = "GET";
    request.path = path;
    return request;
  }
  TestingCluster cluster_;
  pki::KeyPair ca_ = *pki::make_ca("test");
  TestingHost host_{cluster_, ca_, "host1"};
};

TEST_F(ServerTest, an_admin_is_answered) {
  auto admin = client();
  const auto answer = admin.call("GET", "/v1/cluster");
  ASSERT_TRUE(answer.ok()) << answer.error().what;
  EXPECT_EQ(json::parse(*answer)["name"], "test");
}

TEST_F(ServerTest, a_certificate_of_another_ca_is_denied) {
  const pki::KeyPair other = *pki::make_ca("test");
  pki::Credentials wrong = host_.credentials(pki::Role::admin, "tester");
  wrong.own = *pki::issue(other, {pki::Role::admin, "tester", {}, std::chrono::hours(1)});
  Client stranger({{host_.address()}, wrong, "", 10s});
  const auto refused = stranger.call("GET", "/v1/cluster");
  EXPECT_EQ(refused.code(), Code::denied) << refused.error().what;
}

TEST_F(ServerTest, an_expired_certificate_is_denied) {
  pki::Credentials old = host_.credentials(pki::Role::admin, "tester");
  old.own = *pki::issue(ca_, {pki::Role::admin, "tester", {}, std::chrono::hours(-1)});
  Client late({{host_.address()}, old, "", 10s});
  EXPECT_EQ(late.call("GET", "/v1/cluster").code(), Code::denied);
}

TEST_F(ServerTest, a_caller_without_certificate_gets_nothing) {
  const std::string command = "openssl s_client -connect " + host_.address() +
                              " -quiet -tls1_3 2>/dev/null <<'E'\nGET /v1/cluster HTTP/1.0\r\n\r\nE\n";
  const auto run = process::run_tool({"/bin/sh", "-c", command});
  ASSERT_TRUE(run.ok()) << run.error().what;
  EXPECT_EQ(run->out, "");
}

TEST_F(ServerTest, a_server_that_is_not_the_expected_host_is_denied) {
  Client picky({{host_.address()}, host_.credentials(pki::Role::host, "host2"), "host2", 10s});
  const auto answer = picky.call("GET", "/v1/cluster");
  EXPECT_EQ(answer.code(), Code::denied);
  EXPECT_NE(answer.error().what.find("is not the expected host"), std::string::npos) << answer.error().what;
}

// Takes connections and closes them at once, as a relay does before a host that is off.
class ClosingListener {
 public:
  ClosingListener() : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    ENSURE(::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), size) == 0 && ::listen(fd_.get(), 8) == 0 &&
               ::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0,
           "a port on loopback is needed");
    address_ = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
    thread_ = std::thread([this] {
      while (process::UniqueFd(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC))) {
      }
    });
  }
  ~ClosingListener() {
    ::shutdown(fd_.get(), SHUT_RDWR);
    thread_.join();
  }
  const std::string& address() const { return address_; }

 private:
  process::UniqueFd fd_;
  std::string address_;
  std::thread thread_;
};

TEST_F(ServerTest, what_takes_a_connection_and_closes_it_is_a_host_that_does_not_answer) {
  const ClosingListener relay;
  Client none({{relay.address()}, host_.credentials(pki::Role::admin, "tester"), "", 10s});
  const auto answer = none.call("POST", "/v1/networks", "{}");
  ASSERT_FALSE(answer.ok());
  EXPECT_EQ(answer.code(), Code::unavailable) << answer.error().what;
  EXPECT_NE(answer.error().what.find("does not answer"), std::string::npos) << answer.error().what;
  Client two({{relay.address(), host_.address()}, host_.credentials(pki::Role::admin, "tester"), "", 10s});
  EXPECT_TRUE(two.call("GET", "/v1/vms").ok()) << "the next host is asked";
}

TEST_F(ServerTest, roles_are_kept_apart) {
  auto admin = client();
  EXPECT_EQ(admin.call("POST", "/v1/members", "{}").code(), Code::denied);
  auto host = client(pki::Role::host, "host2");
  EXPECT_EQ(host.call("POST", "/v1/invites", R"({"host":"host3"})").code(), Code::denied);
  EXPECT_TRUE(host.call("GET", "/v1/vms").ok());
}

TEST_F(ServerTest, an_invite_lets_a_host_join) {
  auto admin = client();
  const auto made = admin.call("POST", "/v1/invites", R"({"host":"host3","addresses":["10.77.0.3"]})");
  ASSERT_TRUE(made.ok()) << made.error().what;
  const auto invite = pki::decode_invite(json::parse(*made)["invite"], 1700000000000);
  ASSERT_TRUE(invite.ok()) << invite.error().what;
  EXPECT_EQ(invite->store_endpoints, std::vector<std::string>{"https://10.77.0.1:2379"});
  Client joining({{host_.address()}, invite->credentials, "", 10s});
  const auto joined = joining.call("POST", "/v1/members", R"({"store_peer_url":"https://10.77.0.3:2380"})");
  ASSERT_TRUE(joined.ok()) << joined.error().what;
  const json answer = json::parse(*joined);
  EXPECT_EQ(pki::verify(ca_.certificate_pem, answer["certificate"])->name, "host3");
  EXPECT_EQ(answer["initial_cluster"], "host3=https://10.77.0.3:2380");
  EXPECT_EQ(list_events(cluster_.store, "", 1)->at(0).kind, "host.joined");
  host_.services.store_kind = "sqlite";
  EXPECT_EQ(admin.call("POST", "/v1/invites", R"({"host":"host4"})").code(), Code::unsupported);
}

TEST_F(ServerTest, a_removed_host_is_refused_until_a_new_invite) {
  auto admin = client();
  auto old = client(pki::Role::host, "host2");
  EXPECT_EQ(old.call("DELETE", "/v1/hosts/host2").code(), Code::denied) << "only administrators remove hosts";
  cluster_.store.erase(record::key::kSessions + "host2");
  EXPECT_TRUE(old.call("GET", "/v1/vms").ok());
  ASSERT_TRUE(admin.call("DELETE", "/v1/hosts/host2").ok());
  EXPECT_EQ(host_.services.removed_members, std::vector<std::string>{"host2"});
  EXPECT_EQ(list_events(cluster_.store, "", 1)->at(0).kind, "host.removed");
  EXPECT_EQ(old.call("GET", "/v1/vms").code(), Code::denied);
  EXPECT_EQ(old.call("POST", "/v1/members", "{}").code(), Code::denied) << "it cannot invite itself";
  for (int invites = 0; invites < 2; ++invites) {
    const auto made = admin.call("POST", "/v1/invites", R"({"host":"host2"})");
    ASSERT_TRUE(made.ok()) << made.error().what;
    const auto invite = pki::decode_invite(json::parse(*made)["invite"], 1700000000000);
    Client joining({{host_.address()}, invite->credentials, "", 10s});
    const auto joined = joining.call("POST", "/v1/members", "{}");
    ASSERT_TRUE(joined.ok()) << joined.error().what;
    pki::Credentials lasting = invite->credentials;
    lasting.own.certificate_pem = json::parse(*joined)["certificate"];
    EXPECT_TRUE(Client({{host_.address()}, lasting, "", 10s}).call("GET", "/v1/vms").ok());
  }
  EXPECT_EQ(old.call("GET", "/v1/vms").code(), Code::denied) << "an invite is for a new key";
}

TEST_F(ServerTest, errors_keep_their_code_and_sentence) {
  auto admin = client();
  const auto answer = admin.call("GET", "/v1/vms/none");
  EXPECT_EQ(answer.code(), Code::not_found);
  EXPECT_EQ(answer.error().what, "There is no VM named none: `holdfast vm ls` lists them.");
}

TEST_F(ServerTest, a_move_is_checked_asked_for_and_cancelled) {
  cluster_.run_vm("web", "host1", 512);
  auto admin = client();
  const auto ask = [&admin](const std::string& body) {
    return admin.call("POST", "/v1/vms/web/migrate", body, "t-move");
  };
  const auto checked = ask(R"({"dry_run":true})");
  ASSERT_TRUE(checked.ok()) << checked.error().what;
  EXPECT_EQ(json::parse(*checked), json::parse(R"({"to":"host2","reasons":[],"engine":"holdfast"})"));
  EXPECT_EQ(json::parse(*ask(R"({"dry_run":true,"engine":"qemu"})"))["engine"], "qemu");
  EXPECT_EQ(ask(R"({"engine":"steam"})").error().what, "The field \"engine\" must be auto, holdfast or qemu.");
  EXPECT_EQ(ask(R"({"encryption":"maybe"})").error().what,
            "The field \"encryption\" must be required, opportunistic or off.");
  EXPECT_EQ(ask(R"({"bandwidth_mbit":1000001})").error().what,
            "The field \"bandwidth_mbit\" must be a whole number from 0 to 1000000.");
  EXPECT_EQ(ask(R"({"max_stop_ms":-1})").code(), Code::invalid);
  EXPECT_TRUE(show_vm(cluster_.store, "web")->vm.active_task.empty());
  const auto asked = ask(R"({"to":"host2","encryption":"opportunistic"})");
  ASSERT_TRUE(asked.ok()) << asked.error().what;
  EXPECT_EQ(*ask(R"({"to":"host2","encryption":"opportunistic"})"), *asked) << "the same key does it once";
  EXPECT_EQ(json::parse(*asked)["limits"]["encryption"], "opportunistic");
  const auto ended = admin.call("POST", "/v1/tasks/t-move/cancel");
  ASSERT_TRUE(ended.ok()) << ended.error().what;
  EXPECT_EQ(json::parse(*ended)["message"], "It was cancelled.");
}

TEST_F(ServerTest, a_body_that_is_too_large_is_refused) {
  auto admin = client();
  EXPECT_FALSE(admin.call("POST", "/v1/networks", std::string(kBodyBytesMax + 1, ' ')).ok());
  EXPECT_TRUE(admin.call("GET", "/v1/vms").ok());
}

TEST_F(ServerTest, the_next_endpoint_is_tried_when_one_is_down) {
  Client two({{"127.0.0.1:1", host_.address()}, host_.credentials(pki::Role::admin, "tester"), "", 10s});
  EXPECT_TRUE(two.call("GET", "/v1/vms").ok());
  Client none({{"127.0.0.1:1"}, host_.credentials(pki::Role::admin, "tester"), "", 10s});
  EXPECT_EQ(none.call("POST", "/v1/networks", "{}").code(), Code::unavailable);
}

TEST_F(ServerTest, a_repeated_key_does_it_once) {
  auto admin = client();
  const std::string body = json{{"spec", json::parse(vm::to_json(cluster_.spec("web", 512)))}}.dump();
  const auto first = admin.call("POST", "/v1/vms", body, "t-mine");
  const auto second = admin.call("POST", "/v1/vms", body, "t-mine");
  ASSERT_TRUE(second.ok()) << second.error().what;
  EXPECT_EQ(*first, *second);
  EXPECT_EQ(json::parse(*first)["requested_by"], "tester");
}

TEST_F(ServerTest, events_are_streamed_as_they_come) {
  auto follower = client();
  std::string seen;
  Request request = get("/v1/events");
  request.query = {{"follow", "1"}};
  record::EventRecord event;
  event.kind = "test.event";
  event.host = HostId("host1");
  event.text = "It happened.";
  const auto opened = [&] { emit(cluster_.store, event, 1700000000001); };
  const Status status = follower.stream(
      request,
      [&](std::string_view text) {
        seen += text;
        return seen.find("It happened.") == std::string::npos;
      },
      opened);
  EXPECT_TRUE(status.ok());
  EXPECT_NE(seen.find("event: test.event\ndata: {"), std::string::npos) << seen;
}

TEST_F(ServerTest, a_console_is_read_and_written) {
  cluster_.run_vm("web", "host1", 512);
  auto reader = client();
  auto writer = client();
  std::string seen;
  const Status status = reader.stream(get("/v1/vms/web/console"), [&](std::string_view text) {
    seen += text;
    if (seen == "hello\n") {
      EXPECT_EQ(client().exchange(get("/v1/vms/web/console"))->status, 423);  // one reader only
      EXPECT_TRUE(writer.call("POST", "/v1/vms/web/console", "ping").ok());
    }
    return seen != "hello\nping";
  });
  EXPECT_TRUE(status.ok());
  EXPECT_EQ(seen, "hello\nping");
}

TEST_F(ServerTest, a_console_elsewhere_is_forwarded) {
  TestingHost other(cluster_, ca_, "host2");
  ASSERT_TRUE(other.start().ok());
  cluster_.run_vm("web", "host2", 512);
  auto reader = client();
  std::string seen;
  const Status status = reader.stream(get("/v1/vms/web/console"), [&](std::string_view text) {
    seen += text;
    if (seen == "hello\n") {
      EXPECT_TRUE(client().call("POST", "/v1/vms/web/console", "x").ok());
    }
    return seen != "hello\nx";
  });
  EXPECT_TRUE(status.ok());
  EXPECT_EQ(seen, "hello\nx");
  EXPECT_EQ(json::parse(*client().call("GET", "/v1/hosts/host2/local"))["guard"], "renewing");
}

TEST_F(ServerTest, a_host_that_is_down_is_unavailable) {
  cluster_.run_vm("web", "host2", 512);
  EXPECT_EQ(client().call("POST", "/v1/vms/web/console", "x").code(), Code::unavailable);
}

TEST_F(ServerTest, stop_ends_open_streams) {
  auto follower = client();
  Request request = get("/v1/events");
  request.query = {{"follow", "1"}};
  std::thread stopper;
  const Status status = follower.stream(
      request, [](std::string_view) { return true; },
      [&] { stopper = std::thread([&] { host_.server.stop(); }); });
  stopper.join();
  EXPECT_FALSE(status.ok());
}

TEST(Endpoints, addresses_are_parsed_strictly) {
  EXPECT_EQ(parse_endpoint("https://10.0.0.1:7443/")->port, 7443);
  EXPECT_EQ(parse_endpoint("10.0.0.1")->port, kDefaultPort);
  EXPECT_EQ(parse_endpoint("[::1]:80")->host, "::1");
  for (const auto* bad : {"", "a:b", "a:70000", "http://a/b", "a b", ":1"}) {
    EXPECT_EQ(parse_endpoint(bad).code(), Code::invalid) << bad;
  }
}

}  // namespace
}  // namespace hf::api
