// bench-engine: how fast the page engine copies a VM's memory from one side to the other, over 127.0.0.1, both sides in
// this process. A guest of 256 MiB; first all of it, then rounds of 10,000 random pages written anew, timed from
// start_round to the acknowledgement, and last one round of 200 pages: what the last round of a vMotion costs. Not
// measured: QEMU, the tracker, a real link.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "engine/testing_motion.hpp"

namespace {
using namespace hf;
using namespace hf::engine;

constexpr std::uint64_t kPages = 256ULL * 1024 * 1024 / kPageBytes;
constexpr int kRounds = 15;

// half: each page half random, half the same byte: packs to about half. noise: does not pack at all. few: a random word
// of each page, so that a delta does.
enum class Content { half, noise, few };

void write_page(std::byte* page, Content content, Rng& rng) {
  if (content == Content::few) {
    page[rng.below(kPageBytes)] ^= std::byte{0x55};
    return;
  }
  const std::size_t random = content == Content::noise ? kPageBytes : kPageBytes / 2;
  for (std::size_t at = 0; at < random; at += 8) {
    const std::uint64_t word = rng.next();
    std::memcpy(page + at, &word, 8);
  }
  std::memset(page + random, static_cast<int>(rng.below(255)) + 1, kPageBytes - random);
}

PageSet write_some(test::Guest& guest, std::uint64_t count, Content content, Rng& rng) {
  std::vector<PageNumber> pages;
  for (std::uint64_t i = 0; i < count; ++i) pages.push_back(rng.below(kPages));
  std::sort(pages.begin(), pages.end());
  pages.erase(std::unique(pages.begin(), pages.end()), pages.end());
  PageSet set;
  for (const PageNumber page : pages) {
    write_page(guest.at(page), content, rng);
    if (!set.empty() && set.back().first + set.back().count == page) {
      ++set.back().count;
    } else {
      set.push_back({page, 1});
    }
  }
  return set;
}

double ms(Duration duration) { return std::chrono::duration<double, std::milli>(duration).count(); }
double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct Case {
  const char* name;
  Content content;
  bool tls;
  Compression compression;
};

Status send(const Case& one, const test::Side& side, test::Guest& guest, const std::string& endpoint) {
  Rng rng(1);
  for (PageNumber page = 0; page < kPages; ++page)
    write_page(guest.at(page), one.content == Content::few ? Content::noise : one.content, rng);
  TRY_ASSIGN(Connections connections, connect(endpoint, side.options, guest.memory.blocks(), side.failure));
  const auto sender = Sender::start(guest.memory, std::move(connections), {.compression = one.compression});
  TRY(sender->start_round(test::all_of(guest.memory)));
  TRY_ASSIGN(const RoundReport whole, sender->finish_round());
  std::vector<double> large, small, megabytes;
  for (int round = 0; round < kRounds; ++round) {
    Rng same(7);  // the pages that were written before, so that deltas can be had
    TRY(sender->start_round(
        write_some(guest, 10'000, one.content, one.content == Content::few ? same : rng)));
    TRY_ASSIGN(const RoundReport report, sender->finish_round());
    large.push_back(ms(report.took));
    megabytes.push_back(static_cast<double>(report.bytes) / 1e6);
    TRY(sender->start_round(write_some(guest, 200, one.content, rng)));
    TRY_ASSIGN(const RoundReport last, sender->finish_round());
    small.push_back(ms(last.took));
  }
  const double rate = static_cast<double>(kPages * kPageBytes) / 1e6 / (ms(whole.took) / 1e3);
  fmt::print("| {:<36} | {:>10.0f} | {:>11.1f} | {:>10.1f} | {:>9.2f} |\n", one.name, rate, median(large),
             median(megabytes), median(small));
  std::fflush(stdout);
  TRY(sender->send_device_state(std::vector<std::byte>(100'000)));
  TRY(sender->wait_loaded(10s));
  return sender->tell_committed(1);
}

Status run(const Case& one, const pki::KeyPair& ca) {
  test::Side from, to;
  from.options.data_streams = default_data_streams();
  if (one.tls) {
    TRY_ASSIGN(const pki::KeyPair first,
               pki::issue(ca, {.role = pki::Role::host, .name = "host1", .addresses = {}}));
    TRY_ASSIGN(const pki::KeyPair second,
               pki::issue(ca, {.role = pki::Role::host, .name = "host2", .addresses = {}}));
    from.options.credentials = pki::Credentials{ca.certificate_pem, first};
    to.options.credentials = pki::Credentials{ca.certificate_pem, second};
    from.options.encryption = to.options.encryption = Encryption::required;
    from.options.peer = HostId("host2");
    to.options.peer = HostId("host1");
  }
  test::Guest source = test::make_guest({kPages}), destination = test::make_guest({kPages});
  TRY_ASSIGN(Listener listener, Listener::open("127.0.0.1:0"));
  std::vector<std::byte> state;
  const test::Outcome outcome =
      test::run_both([&] { return send(one, from, source, listener.endpoint()); },
                     [&] { return test::receive_all(listener, to, destination.memory, state); });
  TRY(outcome.source);
  TRY(outcome.destination);
  if (test::first_difference(source, destination) != kPages)
    return Error{Code::corrupt, "The memory at the destination differs."};
  return {};
}
}  // namespace

int main() {
  const auto ca = pki::make_ca("bench");
  if (!ca.ok()) return 1;
  fmt::print("{} page connections; medians of {} rounds\n", default_data_streams(), kRounds);
  fmt::print("| {:<36} | {:>10} | {:>11} | {:>10} | {:>9} |\n", "memory, link, packing", "all, MB/s",
             "10,000, ms", "sent, MB", "200, ms");
  fmt::print("|---|---|---|---|---|\n");
  for (const Case& one : {Case{"noise, plain, adaptive", Content::noise, false, Compression::adaptive},
                          Case{"noise, TLS, adaptive", Content::noise, true, Compression::adaptive},
                          Case{"half, plain, adaptive", Content::half, false, Compression::adaptive},
                          Case{"half, TLS, adaptive", Content::half, true, Compression::adaptive},
                          Case{"half, plain, lz4", Content::half, false, Compression::lz4},
                          Case{"half, plain, zstd", Content::half, false, Compression::zstd},
                          Case{"a byte of each, plain, adaptive", Content::few, false, Compression::adaptive},
                          Case{"a byte of each, TLS, adaptive", Content::few, true, Compression::adaptive}}) {
    if (const Status done = run(one, *ca); !done.ok()) {
      fmt::print(stderr, "bench-engine: {}: {}\n", one.name, done.error().what);
      return 1;
    }
  }
  return 0;
}
