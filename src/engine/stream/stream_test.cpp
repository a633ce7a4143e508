// Goal: only the other side of the same motion gets page streams, as encrypted as both sides want it; everybody else is
// told why not. Over real sockets; certificates from a CA made here.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <future>

#include "base/ensure.hpp"
#include "engine/stream/connection.hpp"
#include "engine/stream/throttle.hpp"
#include "engine/testing_hosts.hpp"
#include "engine/wire/message.hpp"

namespace hf::engine {
namespace {

const std::vector<RamBlock> kBlocks = {{.bytes = 8 * kPageBytes}};

using test::credentials_of;
using test::make_ca;

// Both sides as they should be; a test changes one thing.
struct Pair : test::TwoHosts {
  std::vector<RamBlock> source_blocks = kBlocks;

  struct Outcome {
    Result<Connections> source, destination;
  };
  Outcome meet() const {
    auto listener = Listener::open("127.0.0.1:0");
    ENSURE(listener.ok(), "loopback is there");
    auto end = std::make_shared<Failure>();
    auto other =
        std::async(std::launch::async, [&] { return listener->accept(destination, kBlocks, 5s, end); });
    auto mine = connect(listener->endpoint(), source, source_blocks, std::make_shared<Failure>());
    if (!mine.ok()) end->set({Code::failed, "The source was refused."});
    return {std::move(mine), other.get()};
  }
};

void expect_refused(const Pair& pair, Code code, const std::string& words) {
  const auto outcome = pair.meet();
  ASSERT_FALSE(outcome.source.ok());
  EXPECT_FALSE(outcome.destination.ok());
  EXPECT_EQ(outcome.source.code(), code);
  EXPECT_NE(outcome.source.error().what.find(words), std::string::npos) << outcome.source.error().what;
}

TEST(Streams, between_the_two_hosts_of_a_motion_are_encrypted) {
  const auto outcome = Pair().meet();
  ASSERT_TRUE(outcome.source.ok()) << outcome.source.error().what;
  ASSERT_TRUE(outcome.destination.ok()) << outcome.destination.error().what;
  EXPECT_TRUE(outcome.source->encrypted);
  EXPECT_TRUE(outcome.destination->encrypted);
  EXPECT_EQ(outcome.destination->data.size(), 2U);
  const auto frame = wire::frame_of(wire::Kind::aborted, wire::encode_reason(std::string(900, 'x')));
  ASSERT_TRUE(outcome.source->data[1]->write(frame).ok());
  const auto got = outcome.destination->data[1]->read(5s);
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(wire::decode_reason(got->body)->size(), 900U);
}

TEST(Streams, with_a_wrong_token_motion_or_memory_are_refused_with_the_reason) {
  Pair pair;
  pair.source.token = "a guess!";
  expect_refused(pair, Code::denied, "The token is not this motion's.");
  pair.source.token = "";
  expect_refused(pair, Code::denied, "The token is not this motion's.");
  pair.source.token = pair.destination.token;
  pair.source.motion = TaskId("task-2");
  expect_refused(pair, Code::denied, "motion task-1 of VM vm-1");
  pair.source.motion = pair.destination.motion;
  pair.source_blocks.push_back({.bytes = kPageBytes});
  expect_refused(pair, Code::denied, "memory has other sizes");
}

TEST(Streams, of_hosts_that_do_not_agree_who_copies_the_memory_are_refused) {
  Pair pair;
  pair.source.pages = false;
  expect_refused(pair, Code::denied, "do not agree who copies the memory");
  pair.source.pages = true;
  pair.destination.pages = false;
  expect_refused(pair, Code::denied, "do not agree who copies the memory");
  pair.source.pages = false;
  const auto outcome = pair.meet();
  ASSERT_TRUE(outcome.source.ok() && outcome.destination.ok());
  EXPECT_TRUE(outcome.source->data.empty() && outcome.destination->data.empty());
}

TEST(Streams, without_any_token_at_the_destination_are_refused) {
  Pair pair;
  pair.source.token = pair.destination.token = "";
  expect_refused(pair, Code::denied, "The token is not this motion's.");
}

TEST(Streams, with_certificates_of_another_cluster_are_refused_by_either_side) {
  Pair pair;
  pair.source.credentials = credentials_of(make_ca(), "host1");
  expect_refused(pair, Code::denied, "not host host2 of this cluster");  // the source sees the other CA first
  pair = Pair();
  pair.source.credentials->own = credentials_of(make_ca(), "host1").own;
  expect_refused(pair, Code::denied, "Host host2 refuses this host's certificate");
}

TEST(Streams, of_another_host_than_expected_or_of_an_administrator_are_refused) {
  Pair pair;
  pair.source.peer = HostId("host3");
  expect_refused(pair, Code::denied, "not host host3 of this cluster");
  pair = Pair();
  pair.source.credentials = credentials_of(pair.ca, "host3");
  expect_refused(pair, Code::denied, "refuses this host's certificate");
  pair = Pair();
  pair.source.credentials = credentials_of(pair.ca, "host1", pki::Role::admin);
  expect_refused(pair, Code::denied, "refuses this host's certificate");
}

TEST(Streams, are_as_encrypted_as_both_sides_want_it) {
  using enum Encryption;
  struct Row {
    Encryption source, destination;
    int result;  // 1: TLS, 0: plain, -1: refused
  };
  for (const Row& row :
       {Row{off, off, 0}, Row{off, opportunistic, 0}, Row{off, required, -1}, Row{opportunistic, off, 0},
        Row{opportunistic, opportunistic, 1}, Row{opportunistic, required, 1}, Row{required, off, -1},
        Row{required, opportunistic, 1}, Row{required, required, 1}}) {
    Pair pair;
    pair.source.encryption = row.source;
    pair.destination.encryption = row.destination;
    const auto outcome = pair.meet();
    const int result = !outcome.source.ok() ? -1 : outcome.source->encrypted ? 1 : 0;
    EXPECT_EQ(result, row.result) << static_cast<int>(row.source) << static_cast<int>(row.destination);
    EXPECT_EQ(outcome.destination.ok(), row.result >= 0);
  }
}

TEST(Streams, without_certificates_are_plain_if_that_is_allowed_and_else_an_error_before_any_connection) {
  Pair pair;
  pair.source.credentials.reset();
  EXPECT_EQ(pair.meet().source.code(), Code::invalid);
  pair.source.encryption = pair.destination.encryption = Encryption::opportunistic;
  const auto outcome = pair.meet();
  ASSERT_TRUE(outcome.source.ok()) << outcome.source.error().what;
  EXPECT_FALSE(outcome.source->encrypted);
}

// Says `bytes` to a destination and returns what it answers.
std::vector<std::byte> say(const std::string& endpoint, wire::Bytes bytes, std::size_t answer) {
  process::UniqueFd socket(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(std::stoi(endpoint.substr(endpoint.rfind(':') + 1))));
  ENSURE(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0,
         "it listens");
  ENSURE(::send(socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) > 0, "it reads");
  std::vector<std::byte> got(answer);
  got.resize(
      static_cast<std::size_t>(std::max<ssize_t>(0, ::recv(socket.get(), got.data(), answer, MSG_WAITALL))));
  return got;
}

TEST(Streams, strangers_are_turned_away_and_the_source_is_still_welcome) {
  Pair pair;
  auto listener = Listener::open("127.0.0.1:0");
  ASSERT_TRUE(listener.ok());
  const auto end = std::make_shared<Failure>();
  auto other =
      std::async(std::launch::async, [&] { return listener->accept(pair.destination, kBlocks, 5s, end); });
  const auto newer = say(listener->endpoint(), wire::encode(wire::Greeting{9, 2}), wire::kGreetingBytes);
  ASSERT_EQ(newer.size(), wire::kGreetingBytes);
  EXPECT_EQ(newer[5], static_cast<std::byte>(wire::Choice::other_version));
  const std::string http = "GET / HTTP/1.1\r\n\r\n";
  EXPECT_TRUE(say(listener->endpoint(), std::as_bytes(std::span(http)), 1).empty());
  const auto mine = connect(listener->endpoint(), pair.source, kBlocks, std::make_shared<Failure>());
  EXPECT_TRUE(mine.ok()) << mine.error().what;
  EXPECT_TRUE(other.get().ok());
}

TEST(Streams, of_another_version_are_an_error_that_names_both) {
  Pair pair;
  process::UniqueFd listening(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(::bind(listening.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(listening.get(), 1), 0);
  ASSERT_EQ(::getsockname(listening.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  auto other = std::async(std::launch::async, [&] {
    const process::UniqueFd one(::accept(listening.get(), nullptr, nullptr));
    const auto answer =
        wire::encode(wire::Greeting{9, static_cast<std::uint8_t>(wire::Choice::other_version)});
    return ::send(one.get(), answer.data(), answer.size(), MSG_NOSIGNAL) > 0;
  });
  const auto mine = connect("127.0.0.1:" + std::to_string(ntohs(address.sin_port)), pair.source, kBlocks,
                            std::make_shared<Failure>());
  EXPECT_TRUE(other.get());
  EXPECT_EQ(mine.code(), Code::unsupported);
  EXPECT_NE(mine.error().what.find("version 9"), std::string::npos) << mine.error().what;
}

TEST(Listener, gives_up_after_its_patience_and_at_once_when_it_is_cancelled) {
  Pair pair;
  auto listener = Listener::open("127.0.0.1:0");
  ASSERT_TRUE(listener.ok());
  const auto end = std::make_shared<Failure>();
  EXPECT_EQ(listener->accept(pair.destination, kBlocks, 10ms, end).code(), Code::timed_out);
  auto other =
      std::async(std::launch::async, [&] { return listener->accept(pair.destination, kBlocks, 1h, end); });
  end->set({Code::failed, "Cancelled."});
  EXPECT_EQ(other.get().error().what, "Cancelled.");
}

TEST(Connect, to_nobody_is_an_error_and_a_bad_address_as_well) {
  Pair pair;
  EXPECT_EQ(connect("127.0.0.1:1", pair.source, kBlocks, std::make_shared<Failure>()).code(),
            Code::unavailable);
  for (const std::string bad : {"", "host2:7", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:70000"})
    EXPECT_EQ(connect(bad, pair.source, kBlocks, std::make_shared<Failure>()).code(), Code::invalid) << bad;
}

TEST(TokenBucket, lets_the_rate_pass_and_makes_up_for_no_long_pause) {
  stream::TokenBucket bucket;
  const Instant start(1h);
  Instant last{};
  for (int i = 0; i < 1000; ++i) last = bucket.take(1000, 1'000'000, start);
  EXPECT_EQ(last, start + 999ms - stream::TokenBucket::kBurst);
  EXPECT_EQ(bucket.take(1000, 1'000'000, start + 1h), start + 1h);
  for (int i = 0; i < 20; ++i) last = bucket.take(1000, 1'000'000, start + 1h);
  EXPECT_EQ(last, start + 1h + 10ms);
}

TEST(Listening, takes_the_first_free_port_of_a_range_and_says_so_when_none_is) {
  const auto any = Listener::open("127.0.0.1:0");
  ASSERT_TRUE(any.ok());
  const std::string endpoint = any->endpoint(), port = endpoint.substr(endpoint.rfind(':') + 1);
  const auto none = Listener::open("127.0.0.1:" + port + "-" + port);
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.code(), Code::no_room);
  EXPECT_NE(none.error().what.find("motion_ports"), std::string::npos);
  const auto next = Listener::open("127.0.0.1:" + port + "-" + std::to_string(std::stoi(port) + 20));
  ASSERT_TRUE(next.ok()) << next.error().what;
  EXPECT_NE(next->endpoint(), endpoint);
}

}  // namespace
}  // namespace hf::engine
