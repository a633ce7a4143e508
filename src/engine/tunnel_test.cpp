// Goal: what a program writes into one end of a tunnel comes out of the other, whole, in order and both ways; only the
// other host of the same motion gets in; whatever breaks is known at both sides. Method: real sockets and certificates;
// the test plays both programs. Each wait is for a byte or an end, with a limit that only a failure reaches.
#include "engine/tunnel.hpp"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <future>
#include <set>

#include "base/testing/temp_folder.hpp"
#include "engine/stream/connection.hpp"
#include "engine/testing_hosts.hpp"
#include "engine/testing_relay.hpp"
#include "sys/process/clock.hpp"
#include "sys/qemu/unix_socket.hpp"

namespace hf::engine {
namespace {
using process::UniqueFd;
constexpr Duration kLimit = 30s;
constexpr std::size_t kMuch = 8 << 20;  // more than all the sockets on the way hold

std::string text_of(std::size_t bytes, char first) {
  std::string text(bytes, '\0');
  for (std::size_t i = 0; i < bytes; ++i) text[i] = static_cast<char>(first + static_cast<char>(i * 31 / 7 % 61));
  return text;
}

// Until so many bytes or the end.
std::string read_some(const UniqueFd& from, std::size_t bytes) {
  std::string all;
  while (all.size() < bytes) {
    const auto part = qemu::receive_some(from.get(), kLimit);
    if (!part.ok() || part->empty()) break;
    all += *part;
  }
  return all;
}
bool at_end(const UniqueFd& from) {
  const auto part = qemu::receive_some(from.get(), kLimit);
  return !part.ok() ? part.code() == Code::unavailable : part->empty();
}
bool is_set(const Failure& failure) {
  pollfd end{failure.descriptor(), POLLIN, 0};
  return ::poll(&end, 1, 30'000) == 1;
}

class Tunnels : public testing::Test {
 protected:
  // Both ends, with a listening program for each of two channels at the destination. `fault`: of a link that does not
  // encrypt.
  void start(std::optional<test::Fault> fault = {}) {
    if (fault) hosts_.source.encryption = hosts_.destination.encryption = Encryption::off;
    auto listener = Listener::open("127.0.0.1:0");
    ASSERT_TRUE(listener.ok());
    endpoint_ = listener->endpoint();
    for (const std::string name : {"migration", "disk:root"}) {
      auto server = qemu::listen_unix(folder_ / ("exit-" + name));
      ASSERT_TRUE(server.ok()) << server.error().what;
      servers_[name] = std::move(*server);
    }
    const bool encrypted = hosts_.destination.encryption != Encryption::off;
    exit_ = TunnelExit::start(std::move(*listener), {hosts_.destination, encrypted, 0},
                              {{"migration", folder_ / "exit-migration"}, {"disk:root", folder_ / "exit-disk:root"}},
                              there_);
    if (fault) relay_ = std::make_unique<test::Relay>(endpoint_, *fault);
    entrance_ = TunnelEntrance::start(relay_ ? relay_->endpoint() : endpoint_,
                                      {hosts_.source, hosts_.source.encryption != Encryption::off, rate_}, here_);
  }
  // A new connection of the source's program, and of the destination's.
  std::pair<UniqueFd, UniqueFd> connect(const std::string& channel) {
    if (doors_.insert(channel).second) {
      const Status opened = entrance_->open(channel, folder_ / ("entrance-" + channel));
      EXPECT_TRUE(opened.ok()) << opened.error().what;
    }
    auto near = qemu::connect_unix(folder_ / ("entrance-" + channel));
    EXPECT_TRUE(near.ok());
    const UniqueFd& server = servers_[channel];
    pollfd waiting[] = {{server.get(), POLLIN, 0}, {here_->descriptor(), POLLIN, 0}};
    ::poll(waiting, 2, 30'000);
    return {near.ok() ? std::move(*near) : UniqueFd(),
            UniqueFd(::accept4(server.get(), nullptr, nullptr, SOCK_CLOEXEC))};
  }

  hf::test::TempFolder folder_;
  test::TwoHosts hosts_;
  std::uint64_t rate_ = 0;
  std::string endpoint_;
  std::map<std::string, UniqueFd> servers_;
  std::set<std::string> doors_;
  const std::shared_ptr<Failure> here_ = std::make_shared<Failure>(), there_ = std::make_shared<Failure>();
  std::unique_ptr<test::Relay> relay_;
  std::unique_ptr<TunnelExit> exit_;
  std::unique_ptr<TunnelEntrance> entrance_;
};

TEST_F(Tunnels, carry_much_both_ways_at_once_and_tell_the_end_of_each) {
  start();
  auto [near, far] = connect("migration");
  const std::string forth = text_of(kMuch, 'a'), back = text_of(kMuch, 'A');
  auto answer = std::async(std::launch::async, [&, &end = far] {
    return qemu::send_all(end.get(), back, kLimit).ok() && ::shutdown(end.get(), SHUT_WR) == 0;
  });
  auto question = std::async(std::launch::async, [&, &end = near] {
    return qemu::send_all(end.get(), forth, kLimit).ok() && ::shutdown(end.get(), SHUT_WR) == 0;
  });
  auto read_near = std::async(std::launch::async, [&, &end = near] { return read_some(end, kMuch + 1); });
  EXPECT_EQ(read_some(far, kMuch + 1), forth);
  EXPECT_EQ(read_near.get(), back);
  EXPECT_TRUE(answer.get() && question.get());
  EXPECT_GT(entrance_->traffic().sent, kMuch);
  EXPECT_LT(entrance_->traffic().sent, kMuch + kMuch / 100);
  EXPECT_GT(exit_->traffic().sent, kMuch);
  EXPECT_FALSE(here_->is_set() || there_->is_set());
}

TEST_F(Tunnels, writer_that_nobody_reads_waits_and_another_stream_goes_on) {
  start();
  auto [stuck, ignored] = connect("migration");
  auto writing = std::async(std::launch::async, [&, &end = stuck] {
    return qemu::send_all(end.get(), text_of(kMuch, 'a'), kLimit).ok();
  });
  auto [near, far] = connect("disk:root");
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(qemu::send_all(near.get(), "question", kLimit).ok());
    ASSERT_EQ(read_some(far, 8), "question");
    ASSERT_TRUE(qemu::send_all(far.get(), "answer", kLimit).ok());
    ASSERT_EQ(read_some(near, 6), "answer");
  }
  EXPECT_EQ(read_some(ignored, kMuch).size(), kMuch);
  EXPECT_TRUE(writing.get());
}

TEST_F(Tunnels, connections_arrive_in_the_order_in_which_they_were_made) {
  start();
  for (int i = 0; i < 5; ++i) {
    const auto [near, far] = connect("migration");
    ASSERT_TRUE(qemu::send_all(near.get(), std::to_string(i), kLimit).ok());
    EXPECT_EQ(read_some(far, 1), std::to_string(i));
  }
  EXPECT_EQ(exit_->traffic().streams, 5U);
}

TEST_F(Tunnels, program_that_closes_or_dies_ends_its_stream_at_the_other_side_and_nothing_else) {
  start();
  auto [near, far] = connect("migration");
  auto [other_near, other_far] = connect("migration");
  near.reset();
  EXPECT_TRUE(at_end(far));
  // Somebody who writes on to a program that has gone finds his socket closed.
  other_far.reset();
  EXPECT_FALSE(qemu::send_all(other_near.get(), text_of(4 * kMuch, 'a'), kLimit).ok());
  auto [last_near, last_far] = connect("disk:root");
  ASSERT_TRUE(qemu::send_all(last_near.get(), "still", kLimit).ok());
  EXPECT_EQ(read_some(last_far, 5), "still");
  EXPECT_FALSE(here_->is_set() || there_->is_set());
}

TEST_F(Tunnels, cut_in_the_middle_is_known_at_both_sides_and_closes_both_programs_sockets) {
  // Frame 0 is the greeting, 1 the tunnel's name.
  start(test::Fault{.kind = test::Fault::Kind::cut_within, .connection = 0, .to_source = false, .frame = 9});
  auto [near, far] = connect("migration");
  (void)qemu::send_all(near.get(), text_of(kMuch, 'a'), kLimit);  // as far as it comes
  EXPECT_LT(read_some(far, kMuch).size(), kMuch);
  EXPECT_TRUE(at_end(near) && at_end(far));
  EXPECT_TRUE(is_set(*here_) && is_set(*there_));
  EXPECT_NE(there_->status().error().what.find("Channel migration"), std::string::npos)
      << there_->status().error().what;
}

TEST_F(Tunnels, frame_that_was_changed_on_its_way_ends_the_motion_at_both_sides) {
  start(test::Fault{.kind = test::Fault::Kind::corrupt, .connection = 0, .to_source = false, .frame = 3});
  auto [near, far] = connect("migration");
  (void)qemu::send_all(near.get(), text_of(kMuch, 'a'), kLimit);  // as far as it comes
  EXPECT_LT(read_some(far, kMuch).size(), kMuch);
  EXPECT_TRUE(is_set(*here_) && is_set(*there_));
  EXPECT_EQ(there_->status().code(), Code::corrupt);
}

TEST_F(Tunnels, impostor_is_refused_and_the_motion_goes_on) {
  start();
  Failure failure;
  const auto refused = [&](const ConnectionOptions& options, const std::string& channel) {
    const auto connection = connect_tunnel(endpoint_, options, true, channel, failure);
    return connection.ok() ? "" : connection.error().what;
  };
  auto wrong = hosts_.source;
  wrong.token = "a guess!";
  EXPECT_NE(refused(wrong, "migration").find("token"), std::string::npos);
  wrong = hosts_.source;
  wrong.motion = TaskId("task-2");
  EXPECT_NE(refused(wrong, "migration").find("motion task-1"), std::string::npos);
  wrong = hosts_.source;
  wrong.credentials = test::credentials_of(hosts_.ca, "host3");
  EXPECT_NE(refused(wrong, "migration").find("refuses this host's certificate"), std::string::npos);
  wrong = hosts_.source;
  wrong.encryption = Encryption::off;
  EXPECT_NE(refused(wrong, "migration").find("insists on encrypted"), std::string::npos);
  EXPECT_NE(refused(hosts_.source, "disk:other").find("no channel of that name"), std::string::npos);
  EXPECT_FALSE(there_->is_set());
  auto [near, far] = connect("migration");
  ASSERT_TRUE(qemu::send_all(near.get(), "mine", kLimit).ok());
  EXPECT_EQ(read_some(far, 4), "mine");
}

TEST_F(Tunnels, destination_that_refuses_ends_the_motion_with_its_words) {
  start();
  servers_["migration"].reset();  // its program does not listen any more
  auto [near, far] = connect("migration");
  EXPECT_TRUE(at_end(near));
  ASSERT_TRUE(is_set(*here_));
  EXPECT_NE(here_->status().error().what.find("Cannot connect"), std::string::npos) << here_->status().error().what;
}

TEST_F(Tunnels, keep_to_their_rate) {
  rate_ = 20'000'000;
  start();
  auto [near, far] = connect("migration");
  const Instant began = sys::boot_now();
  auto writing = std::async(std::launch::async, [&, &end = near] {
    return qemu::send_all(end.get(), text_of(kMuch, 'a'), kLimit).ok();
  });
  EXPECT_EQ(read_some(far, kMuch).size(), kMuch);
  EXPECT_TRUE(writing.get());
  EXPECT_GT(sys::boot_now() - began, 350ms);  // 8 MiB at 20 MB/s; a busy machine only takes longer
}

TEST_F(Tunnels, cancelled_motion_closes_all_sockets_and_leaves_no_file) {
  start();
  auto [near, far] = connect("migration");
  here_->set({Code::failed, "Cancelled."});
  EXPECT_TRUE(at_end(near) && at_end(far));
  EXPECT_TRUE(is_set(*there_));
  entrance_.reset();
  struct stat status{};
  EXPECT_NE(::stat((folder_ / "entrance-migration").c_str(), &status), 0);
}

TEST_F(Tunnels, socket_belongs_to_the_owner_of_its_folder_alone) {
  start();
  ASSERT_TRUE(entrance_->open("migration", folder_ / "entrance-migration").ok());
  struct stat folder{}, socket{};
  ASSERT_EQ(::stat(folder_.path().c_str(), &folder), 0);
  ASSERT_EQ(::stat((folder_ / "entrance-migration").c_str(), &socket), 0);
  EXPECT_EQ(socket.st_uid, folder.st_uid);
  EXPECT_EQ(socket.st_mode & 0777U, 0600U);
}

}  // namespace
}  // namespace hf::engine
