// Goal: what is encoded is decoded to the same, its bytes are those of doc/formats.md, and anything damaged, cut or
// hostile is refused before it can do harm.
#include <gtest/gtest.h>

#include "base/rng.hpp"
#include "engine/wire/batch.hpp"
#include "engine/wire/message.hpp"
#include "engine/wire/packing.hpp"

namespace hf::engine::wire {
namespace {

constexpr std::uint64_t kPages = 1000;
using Page = std::array<std::byte, kPageBytes>;

std::string hex(Bytes bytes) {
  std::string text;
  for (const std::byte one : bytes) {
    constexpr const char* kDigits = "0123456789abcdef";
    text += kDigits[std::to_integer<unsigned>(one) >> 4U];
    text += kDigits[std::to_integer<unsigned>(one) & 15U];
  }
  return text;
}

Page random_page(std::uint64_t seed) {
  Rng rng(seed);
  Page page;
  for (std::byte& one : page) one = static_cast<std::byte>(rng.next());
  return page;
}

Result<Header> header_of(Bytes frame) { return decode_header(frame.first<kHeaderBytes>()); }

std::vector<std::byte> body_of(BatchWriter& writer) {
  const Bytes body = writer.body();
  return {body.begin(), body.end()};
}

TEST(Frame, has_the_bytes_of_the_format) {
  const auto frame =
      frame_of(Kind::round_done, encode(RoundSum{.round = 2, .batches = 3, .pages = 4, .digest = 5}));
  EXPECT_EQ(hex(frame),
            "4846706706000000"
            "2000000020000000"
            "447092b80c851b34"
            "0200000000000000"
            "0300000000000000"
            "0400000000000000"
            "0500000000000000");
}

TEST(Frame, any_changed_bit_is_noticed) {
  const auto frame = frame_of(Kind::hello, encode(Hello{1, 2, "token", "task-1", "vm-1", {4096, 8192}}));
  for (std::size_t bit = 0; bit < frame.size() * 8; ++bit) {
    auto bad = frame;
    bad[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    const auto header = header_of(bad);
    EXPECT_TRUE(!header.ok() || !verify(*header, Bytes(bad).subspan(kHeaderBytes))) << bit;
  }
}

TEST(Frame, a_length_beyond_the_limit_is_refused_before_anything_is_read) {
  auto frame = frame_of(Kind::batch, std::vector<std::byte>(16));
  put(frame.data() + 8, static_cast<std::uint32_t>(kBodyMax + 1));
  put(frame.data() + 12, static_cast<std::uint32_t>(kBodyMax + 1));
  EXPECT_EQ(header_of(frame).code(), Code::corrupt);
  put(frame.data() + 8, std::uint32_t{16});  // not packed, but two lengths
  EXPECT_EQ(header_of(frame).code(), Code::corrupt);
}

TEST(Message, comes_back_as_it_was_and_every_cut_is_refused) {
  const Hello hello{1, 2, "token", "task-1", "vm-1", {4096, 8192}};
  const auto bytes = encode(hello);
  EXPECT_EQ(*decode_hello(bytes), hello);
  for (std::size_t size = 0; size < bytes.size(); ++size)
    EXPECT_EQ(decode_hello(Bytes(bytes).first(size)).code(), Code::corrupt) << size;
  const RoundSum sum{1, 2, 3, 4};
  EXPECT_EQ(*decode_round_sum(encode(sum)), sum);
  EXPECT_EQ(decode_round_sum(Bytes(encode(sum)).first(31)).code(), Code::corrupt);
  const auto greeting = decode_greeting(encode(Greeting{7, 2}));
  EXPECT_EQ(greeting->version, 7);
  EXPECT_EQ(greeting->word, 2);
  EXPECT_FALSE(decode_greeting({}).ok());
}

TEST(Message, that_opens_a_tunnel_comes_back_as_it_was_and_every_cut_is_refused) {
  TunnelHello hello{"token", "task-1", "vm-1", "disk:root"};
  const auto bytes = encode(hello);
  EXPECT_EQ(*decode_tunnel_hello(bytes), hello);
  for (std::size_t size = 0; size < bytes.size(); ++size)
    EXPECT_EQ(decode_tunnel_hello(Bytes(bytes).first(size)).code(), Code::corrupt) << size;
  hello.channel = std::string(kChannelMax + 1, 'x');
  EXPECT_EQ(decode_tunnel_hello(encode(hello)).code(), Code::corrupt);
}

TEST(Message, a_device_state_beyond_its_total_is_refused) {
  const auto bytes = random_page(1);
  const auto good = decode_device_chunk(encode(DeviceChunk{3, 10'000, 5904, bytes}));
  ASSERT_TRUE(good.ok());
  EXPECT_EQ(good->offset + good->bytes.size(), good->total);
  for (const DeviceChunk& bad : {DeviceChunk{3, 10'000, 5905, bytes},
                                 DeviceChunk{3, 10, UINT64_MAX - 5, bytes}, DeviceChunk{3, 10'000, 0, {}}})
    EXPECT_EQ(decode_device_chunk(encode(bad)).code(), Code::corrupt);
}

TEST(Message, a_reason_is_cut_and_shows_no_control_characters) {
  EXPECT_EQ(*decode_reason(encode_reason("no\x1b[31m\nmore")), "no [31m more");
  EXPECT_EQ(decode_reason(encode_reason(std::string(5000, 'x')))->size(), kTextMax);
}

TEST(Delta, of_any_change_gives_the_page_again) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    Rng rng(seed);
    const Page before = random_page(seed);
    Page after = before;
    for (std::uint64_t i = rng.below(60); i > 0; --i) after[rng.below(kPageBytes)] ^= std::byte{1};
    std::array<std::byte, kDeltaMax> delta;
    const std::size_t size = encode_delta(after.data(), before.data(), delta.data());
    ASSERT_LE(size, kDeltaMax);
    ASSERT_TRUE(is_delta(Bytes(delta).first(size)));
    Page got = before;
    apply_delta(Bytes(delta).first(size), got.data());
    EXPECT_EQ(got, after) << seed;
  }
}

TEST(Delta, of_pages_that_differ_too_much_is_none_and_of_equal_ones_is_empty) {
  const Page one = random_page(1), other = random_page(2);
  std::array<std::byte, kDeltaMax> delta;
  EXPECT_EQ(encode_delta(one.data(), other.data(), delta.data()), kDeltaMax + 1);
  EXPECT_EQ(encode_delta(one.data(), one.data(), delta.data()), 0U);
}

TEST(Delta, that_leaves_the_page_is_none) {
  std::vector<std::byte> bytes;
  for (const unsigned number : {511U, 2U}) append(bytes, static_cast<std::uint16_t>(number));
  bytes.resize(bytes.size() + 16);
  EXPECT_FALSE(is_delta(bytes));
  put(bytes.data(), std::uint16_t{510});
  EXPECT_TRUE(is_delta(bytes));
  EXPECT_FALSE(is_delta(Bytes(bytes).first(bytes.size() - 1)));
}

TEST(Zero, is_a_page_without_a_single_bit) {
  Page page{};
  EXPECT_TRUE(is_zero(page.data()));
  for (std::size_t at = 0; at < kPageBytes; ++at) {
    page[at] = std::byte{0x80};
    EXPECT_FALSE(is_zero(page.data())) << at;
    page[at] = std::byte{0};
  }
}

TEST(Batch, gives_its_pages_back_as_runs) {
  const Page one = random_page(1), two = random_page(2);
  std::vector<std::byte> delta;
  for (const unsigned number : {3U, 1U}) append(delta, static_cast<std::uint16_t>(number));
  delta.resize(delta.size() + 8, std::byte{9});
  BatchWriter writer;
  writer.begin(5);
  writer.add_zero({10, 3});
  writer.add_zero({13, 1});
  writer.add_plain(14, one.data());
  writer.add_plain(15, two.data());
  writer.add_plain(16, one.data());
  writer.replace_by_delta(16, delta);
  writer.add_plain(17, two.data());
  EXPECT_EQ(writer.pages(), 8U);
  std::vector<PageRun> runs;
  const auto round = decode_batch(writer.body(), kPages, runs);
  ASSERT_TRUE(round.ok());
  EXPECT_EQ(*round, 5U);
  ASSERT_EQ(runs.size(), 4U);
  EXPECT_EQ(runs[0].pages, (PageRange{10, 4}));
  EXPECT_EQ(runs[1].pages, (PageRange{14, 2}));
  EXPECT_EQ(std::memcmp(runs[1].bytes.data() + kPageBytes, two.data(), kPageBytes), 0);
  EXPECT_EQ(runs[2].pages, (PageRange{16, 1}));
  EXPECT_EQ(hex(runs[2].bytes), hex(delta));
  EXPECT_EQ(runs[3].kind, PageKind::plain);
}

TEST(Batch, has_the_bytes_of_the_format) {
  BatchWriter writer;
  writer.begin(5);
  writer.add_zero({258, 3});
  EXPECT_EQ(hex(writer.body()),
            "0500000000000000"
            "0201000000000000"
            "03000000"
            "00");
}

TEST(Batch, that_names_memory_the_vm_does_not_have_is_refused) {
  for (const PageRange& bad : {PageRange{kPages, 1}, PageRange{kPages - 1, 2}, PageRange{UINT64_MAX, 1},
                               PageRange{UINT64_MAX - 1, 3}, PageRange{0, kPages + 1}}) {
    BatchWriter writer;
    writer.begin(1);
    writer.add_zero({0, 1});
    writer.add_zero(bad);
    std::vector<PageRun> runs;
    EXPECT_EQ(decode_batch(writer.body(), kPages, runs).code(), Code::corrupt) << bad.first;
  }
}

TEST(Batch, cut_anywhere_or_with_any_changed_byte_never_yields_a_run_outside_memory) {
  BatchWriter writer;
  writer.begin(1);
  writer.add_zero({3, 9});
  writer.add_plain(20, random_page(1).data());
  const auto body = body_of(writer);
  std::vector<PageRun> runs;
  for (std::size_t size = 0; size < body.size(); ++size) {
    const bool is_whole_runs = size == 8 || size == 21;
    EXPECT_EQ(decode_batch(Bytes(body).first(size), kPages, runs).ok(), is_whole_runs) << size;
  }
  for (std::size_t at = 0; at < 40; ++at) {
    auto bad = body;
    bad[at] ^= std::byte{0x81};
    if (!decode_batch(bad, kPages, runs).ok()) continue;
    for (const PageRun& run : runs) EXPECT_LE(run.pages.first + run.pages.count, kPages);
  }
}

TEST(Packing, gives_the_bytes_back_and_refuses_what_is_damaged) {
  std::vector<std::byte> body(100'000);
  for (std::size_t i = 0; i < body.size(); ++i) body[i] = static_cast<std::byte>(i / 100);
  Packer packer;
  for (const Packing packing : {Packing::lz4, Packing::zstd}) {
    std::vector<std::byte> packed(kBodyMax), back(body.size());
    packed.resize(packer.pack(packing, body, packed));
    ASSERT_GT(packed.size(), 0U);
    EXPECT_LT(packed.size(), body.size() / 10);
    EXPECT_TRUE(packer.unpack(packing, packed, back));
    EXPECT_EQ(back, body);
    EXPECT_FALSE(packer.unpack(packing, packed, std::span(back).first(back.size() - 1)));
    EXPECT_FALSE(packer.unpack(packing, Bytes(packed).first(packed.size() - 1), back));
    const Page noise = random_page(1);
    EXPECT_EQ(packer.pack(packing, noise, packed), 0U);
  }
}

}  // namespace
}  // namespace hf::engine::wire
