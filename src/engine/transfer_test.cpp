// Goal: memory and device state arrive as they were, over real sockets and threads; and whatever the link or the other
// side does, both sides end with an error that says why, and nobody waits for ever.
#include <gtest/gtest.h>

#include <cstring>
#include <mutex>
#include <set>

#include "engine/testing_motion.hpp"
#include "engine/testing_relay.hpp"

namespace hf::engine {
namespace {
using namespace test;
using Kind = Fault::Kind;

constexpr Duration kShortSilence = 300ms;

void fill_random(std::byte* page, Rng& rng) {
  for (std::size_t at = 0; at < kPageBytes; at += sizeof(std::uint64_t)) {
    const std::uint64_t word = rng.next();
    std::memcpy(page + at, &word, sizeof word);
  }
}

// A guest that writes, and a tracker that knows what it wrote: stopped by its lock.
class WritingGuest {
 public:
  explicit WritingGuest(Guest& guest) : guest_(guest), thread_([this] { run(); }) {}
  ~WritingGuest() { stop(); }
  void stop() {
    ending_ = true;
    if (thread_.joinable()) thread_.join();
  }
  PageSet take_written() {
    const std::scoped_lock stopped(mutex_);
    PageSet pages;
    for (const PageNumber page : std::exchange(written_, {})) {
      if (!pages.empty() && pages.back().first + pages.back().count == page) {
        ++pages.back().count;
      } else {
        pages.push_back({page, 1});
      }
    }
    return pages;
  }

 private:
  void run() {
    while (!ending_) {
      const std::scoped_lock running(mutex_);
      const PageNumber page = rng_.below(guest_.view.page_count());
      std::byte* bytes = guest_.at(page);
      const std::uint64_t kind = rng_.below(8);
      if (kind == 0) {
        std::memset(bytes, 0, kPageBytes);
      } else if (kind == 1) {
        fill_random(bytes, rng_);
      } else {
        bytes[rng_.below(kPageBytes)] ^= std::byte{1};
      }
      written_.insert(page);
    }
  }
  Guest& guest_;
  Rng rng_{7};
  std::mutex mutex_;
  std::set<PageNumber> written_;
  std::atomic<bool> ending_{false};
  std::thread thread_;
};

std::vector<std::byte> some_device_state() {
  std::vector<std::byte> state(300'000);
  for (std::size_t i = 0; i < state.size(); ++i) state[i] = static_cast<std::byte>(i * 7);
  return state;
}

// The source: `rounds` rounds, the last one with the guest stopped.
Status send_all(const std::string& endpoint, const Side& side, Guest& guest, WritingGuest* writer, int rounds,
                const SenderOptions& sender_options = {}) {
  TRY_ASSIGN(Connections connections, connect(endpoint, side.options, guest.memory.blocks(), side.failure));
  const auto sender = Sender::start(guest.memory, std::move(connections), sender_options);
  for (int round = 1; round <= rounds; ++round) {
    if (round == rounds && writer != nullptr) writer->stop();
    PageSet pages = round == 1 ? all_of(guest.memory) : PageSet{{0, 64}, {200, 40}};
    if (round > 1 && writer != nullptr) pages = writer->take_written();
    TRY(sender->start_round(std::move(pages)));
    if (round < rounds) TRY(sender->finish_round());
  }
  TRY(sender->send_device_state(some_device_state()));
  TRY(sender->finish_round());
  TRY(sender->wait_loaded(5s));
  return sender->tell_committed(kCommitVersion);
}

Listener open_listener() {
  auto listener = Listener::open("127.0.0.1:0");
  ENSURE(listener.ok(), "loopback is there");
  return std::move(listener).value();
}

struct Setting {
  const char* name;
  Compression compression;
  unsigned data_streams;
  std::uint64_t delta_cache_bytes;
};
class Transfer : public testing::TestWithParam<Setting> {};

TEST_P(Transfer, of_a_guest_that_writes_all_the_time_ends_with_equal_memory) {
  Guest source = make_guest({1000, 24}), destination = make_guest({1000, 24});
  Rng rng(1);
  for (PageNumber page = 0; page < 700; ++page) {
    if (page % 3 != 0) fill_random(source.at(page), rng);
  }
  fill_random(destination.at(900), rng);  // what was there before must be gone
  Side from, to;
  from.options.data_streams = GetParam().data_streams;
  WritingGuest writer(source);
  Listener listener = open_listener();
  std::vector<std::byte> state;
  const Outcome outcome = run_both(
      [&] {
        return send_all(
            listener.endpoint(), from, source, &writer, 8,
            {.delta_cache_bytes = GetParam().delta_cache_bytes, .compression = GetParam().compression});
      },
      [&] { return receive_all(listener, to, destination.memory, state); });
  writer.stop();
  ASSERT_TRUE(outcome.source.ok()) << outcome.source.error().what;
  ASSERT_TRUE(outcome.destination.ok()) << outcome.destination.error().what;
  EXPECT_EQ(first_difference(source, destination), source.view.page_count());
  EXPECT_EQ(state, some_device_state());
}
INSTANTIATE_TEST_SUITE_P(, Transfer,
                         testing::Values(Setting{"plain", Compression::off, 2, 8 << 20},
                                         Setting{"adaptive", Compression::adaptive, 2, 8 << 20},
                                         Setting{"lz4", Compression::lz4, 1, 8 << 20},
                                         Setting{"zstd", Compression::zstd, 3, 8 << 20},
                                         Setting{"no_delta", Compression::off, 8, 0},
                                         Setting{"few_places", Compression::off, 2, 100 * kPageBytes}),
                         [](const auto& one) { return std::string(one.param.name); });

TEST(Sender, pages_that_the_guest_never_touched_cost_nothing_and_stay_holes) {
  Guest source = make_guest({100'000}), destination = make_guest({100'000});
  source.at(50'000)[5] = std::byte{1};
  Side from, to;
  Listener listener = open_listener();
  std::vector<std::byte> state;
  const Outcome outcome = run_both([&] { return send_all(listener.endpoint(), from, source, nullptr, 1); },
                                   [&] { return receive_all(listener, to, destination.memory, state); });
  ASSERT_TRUE(outcome.source.ok()) << outcome.source.error().what;
  EXPECT_EQ(*source.memory.present() == *destination.memory.present(), true);
  EXPECT_EQ(count_of(*destination.memory.present()), 1U);
}

TEST(Sender, a_small_change_is_sent_as_a_delta_and_a_page_of_zeros_as_nothing) {
  Guest source = make_guest({64}), destination = make_guest({64});
  Rng rng(1);
  for (PageNumber page = 0; page < 64; ++page) fill_random(source.at(page), rng);
  Side from, to;
  Listener listener = open_listener();
  std::vector<std::byte> state;
  RoundReport second, third;
  const auto send = [&]() -> Status {
    TRY_ASSIGN(auto connections,
               connect(listener.endpoint(), from.options, source.memory.blocks(), from.failure));
    const auto sender = Sender::start(source.memory, std::move(connections));
    for (RoundReport* report : {&second, &second, &third}) {
      TRY(sender->start_round({{0, 64}}));
      TRY_ASSIGN(*report, sender->finish_round());
      for (PageNumber page = 0; page < 64; ++page) source.at(page)[page] ^= std::byte{1};
      std::memset(source.at(63), 0, kPageBytes);
    }
    sender->abort("That was all.");
    return {};
  };
  const Outcome outcome =
      run_both(send, [&] { return receive_all(listener, to, destination.memory, state); });
  ASSERT_TRUE(outcome.source.ok()) << outcome.source.error().what;
  EXPECT_EQ(second.plain_pages, 63U);  // known from now on
  EXPECT_EQ(second.zero_pages, 1U);
  EXPECT_EQ(third.delta_pages, 63U);
  EXPECT_LT(third.bytes, 64 * 64U);
  EXPECT_EQ(outcome.destination.error().what, "The source gave up: That was all.");
}

TEST(Sender, a_limit_delays_and_cancelling_from_another_thread_ends_every_wait) {
  Guest source = make_guest({4096}), destination = make_guest({4096});
  Rng rng(1);
  for (PageNumber page = 0; page < 4096; ++page) fill_random(source.at(page), rng);
  Side from, to;
  Listener listener = open_listener();
  std::vector<std::byte> state;
  const auto send = [&]() -> Status {
    TRY_ASSIGN(auto connections,
               connect(listener.endpoint(), from.options, source.memory.blocks(), from.failure));
    const auto sender = Sender::start(source.memory, std::move(connections), {.bytes_per_second = 1000});
    TRY(sender->start_round(all_of(source.memory)));  // would take hours
    auto canceller = std::async(std::launch::async, [&] { sender->abort("The user cancelled it."); });
    return sender->finish_round().error();
  };
  const Outcome outcome =
      run_both(send, [&] { return receive_all(listener, to, destination.memory, state); });
  EXPECT_EQ(outcome.source.error().what, "The user cancelled it.");
  EXPECT_EQ(outcome.destination.error().what, "The source gave up: The user cancelled it.");
}

TEST(Receiver, a_source_that_sends_pages_after_the_device_state_is_refused) {
  Guest source = make_guest({64}), destination = make_guest({64});
  source.at(0)[0] = std::byte{1};
  Side from, to;
  Listener listener = open_listener();
  std::vector<std::byte> state;
  const auto send = [&]() -> Status {
    TRY_ASSIGN(auto connections,
               connect(listener.endpoint(), from.options, source.memory.blocks(), from.failure));
    const auto sender = Sender::start(source.memory, std::move(connections));
    TRY(sender->start_round(all_of(source.memory)));
    TRY(sender->finish_round());
    TRY(sender->send_device_state(some_device_state()));
    TRY(sender->wait_loaded(5s));
    source.at(0)[0] = std::byte{2};
    TRY(sender->start_round({{0, 1}}));
    return sender->finish_round().error();
  };
  const Outcome outcome =
      run_both(send, [&] { return receive_all(listener, to, destination.memory, state); });
  EXPECT_FALSE(outcome.source.ok());  // why may be lost with the connections
  EXPECT_EQ(outcome.destination.code(), Code::corrupt);
  EXPECT_EQ(destination.at(0)[0], std::byte{1});
}

// Runs a small motion over a link with this fault. False: the link never came to the fault.
bool run_with(const Fault& fault, Outcome& outcome) {
  Guest source = make_guest({300}), destination = make_guest({300});
  Rng rng(3);
  for (PageNumber page = 0; page < 300; ++page) fill_random(source.at(page), rng);
  Side from, to;
  from.options.silence = to.options.silence = kShortSilence;
  Listener listener = open_listener();
  Relay relay(listener.endpoint(), fault);
  std::vector<std::byte> state;
  outcome = run_both(
      [&] {
        const Status sent = send_all(relay.endpoint(), from, source, nullptr, 2);
        if (!sent.ok())
          to.failure->set({Code::failed, "The test has ended."});  // if it still waits to be called
        return sent;
      },
      [&] { return receive_all(listener, to, destination.memory, state); });
  if (outcome.source.ok()) {
    EXPECT_EQ(first_difference(source, destination), 300U);
  }
  return relay.hit();
}

// Hurts every frame of one connection in one direction, one in each motion. How many there were.
int hurt_every_frame(Fault fault) {
  for (fault.frame = 0;; ++fault.frame) {
    SCOPED_TRACE(fmt::format("connection {}, {}, frame {}", fault.connection,
                             fault.to_source ? "back" : "forth", fault.frame));
    Outcome outcome;
    if (!run_with(fault, outcome)) return static_cast<int>(fault.frame);
    // Nobody may take a broken motion for a good one. Only Committed, the last word, has no answer: the store knows.
    EXPECT_FALSE(outcome.destination.ok());
    const bool may_have_been_last = fault.connection == 0 && !fault.to_source;
    EXPECT_TRUE(may_have_been_last || !outcome.source.ok());
    if (!outcome.source.ok()) {
      EXPECT_GT(outcome.source.error().what.size(), 20U);
    }
  }
}

void hurt_everywhere(Fault::Kind kind) {
  std::vector<std::future<int>> runs;
  for (unsigned connection = 0; connection < 3; ++connection) {
    for (const bool to_source : {false, true})
      runs.push_back(std::async(std::launch::async, hurt_every_frame, Fault{kind, connection, to_source, 0}));
  }
  int hits = 0;
  for (auto& run : runs) hits += run.get();
  EXPECT_GT(hits, 25);  // greetings, hellos, batches, ends of rounds, device state, answers
}

TEST(Link, that_is_cut_between_any_two_frames_ends_the_motion_at_both_sides) {
  hurt_everywhere(Kind::cut_before);
}
TEST(Link, that_is_cut_within_any_frame_ends_the_motion_at_both_sides) { hurt_everywhere(Kind::cut_within); }
TEST(Link, that_changes_a_byte_of_any_frame_ends_the_motion_at_both_sides) { hurt_everywhere(Kind::corrupt); }
TEST(Link, that_stalls_at_any_frame_ends_the_motion_at_both_sides) { hurt_everywhere(Kind::stall); }

TEST(Link, that_changes_a_batch_is_named_as_the_cause_at_both_sides) {
  Outcome outcome;
  ASSERT_TRUE(run_with({Kind::corrupt, 1, false, 2}, outcome));
  EXPECT_EQ(outcome.destination.code(), Code::corrupt);
  EXPECT_NE(outcome.source.error().what.find("The destination gave up: "), std::string::npos);
  EXPECT_NE(outcome.source.error().what.find("checksum"), std::string::npos) << outcome.source.error().what;
}

}  // namespace
}  // namespace hf::engine
