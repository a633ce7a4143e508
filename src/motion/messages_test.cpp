// Goal: both ends understand each other to the letter, and take nothing else. Method: every message there and back;
// every member of each left out, doubled in type, and one added.
#include "motion/messages.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace hf::motion {
namespace {
using nlohmann::json;

Leg leg() {
  return {TaskId("t-1"),
          VmId("vm-1"),
          "secret",
          HostId("host2"),
          "/run/holdfast/vms/vm-1",
          Engine::qemu,
          engine::Encryption::opportunistic,
          "/pki/ca.pem",
          "/pki/cert.pem",
          "/pki/key.pem"};
}

std::vector<Order> orders() {
  const std::vector<std::string> macs = {"52:54:00:00:00:01", "52:54:00:00:00:02"};
  return {Send{leg(), "10.77.1.2:4000", 15ms, 1 << 20, true, {"root"}, 1 << 30},
          Receive{leg(), "10.77.1.2:0", 30s, macs, {{"root", "/ds/vm/root.t-1.raw", "raw"}}}, Committed{4711},
          Abort{"The user has cancelled it: \"enough\"\n"}};
}

std::vector<Report> reports() {
  Finished finished;
  finished.rounds = 5;
  finished.zero_pages = 6;
  finished.delta_pages = 7;
  finished.plain_pages = 8;
  finished.bytes = UINT64_MAX;
  finished.stop = {1ms, 2ms, 3ms, 4ms, 5ms, 6ms};
  finished.tracker = "PAGEMAP_SCAN";
  return {Listening{"10.77.1.2:4000"},
          Loaded{3ms},
          Arrived{4711},
          Progress{Phase::stopping, 3, 4, 5, 8, 9, 6, 7, 35, true, 2s},
          ReadyToCommit{},
          Failed{{Code::outcome_unknown, "Nobody knows."}, Guest::stopped},
          finished};
}

TEST(MotionMessages, each_comes_back_as_it_was_in_one_line) {
  for (const Order& order : orders()) {
    const std::string line = encode(order);
    EXPECT_EQ(line.find('\n'), line.size() - 1);
    const auto back = decode_order(std::string_view(line).substr(0, line.size() - 1));
    ASSERT_TRUE(back.ok()) << back.error().what;
    EXPECT_TRUE(*back == order) << line;
  }
  for (const Report& report : reports()) {
    const auto back = decode_report(encode(report));
    ASSERT_TRUE(back.ok()) << back.error().what;
    EXPECT_TRUE(*back == report) << encode(report);
  }
}

// Whatever is wrong with one member, the whole is refused.
template <class Decode>
void expect_strict(const std::string& line, Decode decode) {
  const json good = json::parse(line);
  for (const auto& [name, value] : good.items()) {
    json bad = good;
    bad.erase(name);
    EXPECT_EQ(decode(bad.dump()).code(), Code::invalid) << bad;
    bad = good;
    bad[name] = json::object();
    EXPECT_EQ(decode(bad.dump()).code(), Code::invalid) << bad;
    if (!value.is_number()) continue;
    bad[name] = -1;
    EXPECT_EQ(decode(bad.dump()).code(), Code::invalid) << bad;
    bad[name] = 1.5;
    EXPECT_EQ(decode(bad.dump()).code(), Code::invalid) << bad;
  }
  json more = good;
  more["more"] = 1;
  EXPECT_EQ(decode(more.dump()).code(), Code::invalid);
  for (std::size_t length = 0; length + 1 < line.size(); ++length) {
    EXPECT_EQ(decode(line.substr(0, length)).code(), Code::invalid);
  }
}

TEST(MotionMessages, anything_but_what_the_encoder_makes_is_refused) {
  for (const Order& order : orders()) expect_strict(encode(order), decode_order);
  for (const Report& report : reports()) expect_strict(encode(report), decode_report);
  for (const char* line : {"", "[]", "1", "{}", R"({"type":1})", R"({"type":"nonsense"})", "\xff"}) {
    EXPECT_EQ(decode_order(line).code(), Code::invalid) << line;
    EXPECT_EQ(decode_report(line).code(), Code::invalid) << line;
  }
  EXPECT_EQ(decode_order(encode(Report(Arrived{}))).code(), Code::invalid);
  json number = json::parse(encode(orders()[1]));
  number["macs"] = {1};
  EXPECT_EQ(decode_order(number.dump()).code(), Code::invalid);
  EXPECT_EQ(decode_report(R"({"type":"loaded","load_ns":18446744073709551615})").code(), Code::invalid);
  EXPECT_EQ(decode_report(R"({"type":"failed","code":"nonsense","what":"","guest":"runs"})").code(),
            Code::invalid);
  EXPECT_EQ(decode_report(R"({"type":"failed","code":"failed","what":"","guest":"flies"})").code(),
            Code::invalid);
  EXPECT_EQ(decode_order(encode(Order(Abort{std::string(kLineMax, 'x')}))).code(), Code::invalid);
}

}  // namespace
}  // namespace hf::motion
