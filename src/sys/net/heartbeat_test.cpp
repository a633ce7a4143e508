// Goal: a heartbeat is heard once by those who share the key, and by nobody else; damage and replays are nothing.
#include "sys/net/heartbeat.hpp"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>

namespace hf::net {
namespace {

const HeartbeatKey kKey(32, 7);

TEST(Heartbeat, survives_a_round_trip_and_refuses_every_damaged_byte) {
  const std::string datagram = encode_heartbeat({HostId("host1"), 42}, kKey);
  auto decoded = decode_heartbeat(datagram, kKey);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->from, HostId("host1"));
  EXPECT_EQ(decoded->counter, 42u);
  for (std::size_t i = 0; i < datagram.size(); ++i) {
    std::string damaged = datagram;
    damaged[i] = static_cast<char>(damaged[i] ^ 1);
    EXPECT_EQ(decode_heartbeat(damaged, kKey).code(), Code::corrupt) << i;
    EXPECT_EQ(decode_heartbeat(datagram.substr(0, i), kKey).code(), Code::corrupt) << i;
  }
  EXPECT_EQ(decode_heartbeat(datagram, HeartbeatKey(32, 8)).code(), Code::corrupt);
}

TEST(Heartbeat, two_sockets_hear_each_other) {
  std::mutex mutex;
  std::condition_variable heard;
  std::vector<HostId> from;
  auto a = HeartbeatSocket::open("127.0.0.1:27441", HostId("a"), kKey, [](const HostId&) {});
  auto b = HeartbeatSocket::open("127.0.0.1:27442", HostId("b"), kKey, [&](const HostId& host) {
    std::lock_guard lock(mutex);
    from.push_back(host);
    heard.notify_all();
  });
  ASSERT_TRUE(a.ok() && b.ok());
  (*a)->send_to({"127.0.0.1:27442", "not an address"});
  std::unique_lock lock(mutex);
  ASSERT_TRUE(heard.wait_for(lock, std::chrono::seconds(10), [&] { return !from.empty(); }));
  EXPECT_EQ(from.front(), HostId("a"));
}

TEST(Heartbeat, an_occupied_port_is_said) {
  auto a = HeartbeatSocket::open("127.0.0.1:27443", HostId("a"), kKey, [](const HostId&) {});
  ASSERT_TRUE(a.ok());
  auto again = HeartbeatSocket::open("127.0.0.1:27443", HostId("a"), kKey, [](const HostId&) {});
  ASSERT_FALSE(again.ok());
  EXPECT_NE(again.error().what.find("127.0.0.1:27443"), std::string::npos);
}

}  // namespace
}  // namespace hf::net
