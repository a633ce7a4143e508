// Goal: every message survives a round trip, the bytes are fixed, and what is not one is refused.
#include "guard/protocol.hpp"

#include <gtest/gtest.h>

namespace hf::guard {
namespace {

using Op = Request::Op;
const ha::Admission kAdmission{VmId("vm-1"), Epoch{7}, "/cg/vm-1", "/run/vm-1/hold", true};

std::vector<Request> every_request() {
  std::vector<Request> all;
  for (Op op :
       {Op::renewed, Op::slots, Op::admit, Op::thaw, Op::drop, Op::freeze_all, Op::status, Op::subscribe}) {
    Request request;
    request.op = op;
    if (op == Op::renewed) request.started = Instant(5s), request.session = SessionId("s-1");
    if (op == Op::slots) request.slots = {{DatastoreId("ds-1"), "/mnt/a"}, {DatastoreId("ds-2"), "/mnt/b"}};
    if (op == Op::admit) request.admission = kAdmission;
    if (op == Op::thaw || op == Op::drop) request.vm = VmId("vm-1");
    if (op == Op::thaw) request.epoch = Epoch{7}, request.generation = UINT64_MAX;
    if (op == Op::freeze_all) request.reason = "isolated";
    all.push_back(request);
  }
  return all;
}

TEST(GuardProtocol, requests_survive_a_round_trip) {
  for (const Request& request : every_request())
    EXPECT_EQ(*decode_request(encode(request)), request) << encode(request);
}

TEST(GuardProtocol, golden_packets) {
  const auto all = every_request();
  EXPECT_EQ(encode(all[0]), R"({"op":"renewed","session":"s-1","started_ns":5000000000})");
  EXPECT_EQ(encode(all[3]), R"({"epoch":7,"generation":18446744073709551615,"op":"thaw","vm":"vm-1"})");
  EXPECT_EQ(
      encode_state({{kAdmission}, {}}),
      R"({"format":1,"slots":[],"vms":[{"cgroup":"/cg/vm-1","epoch":7,"hold_page":"/run/vm-1/hold",)"
      R"("protected":true,"vm":"vm-1"}]})"
      "\n");
  EXPECT_EQ(encode_reply({}, std::nullopt), R"({"ok":true})");
}

TEST(GuardProtocol, what_is_no_request_is_refused) {
  for (const char* packet :
       {"", "{}", "[]", R"({"op":"thaw","vm":"x"})", R"({"op":"unfreeze"})", R"({"op":"admit"})"}) {
    EXPECT_EQ(decode_request(packet).code(), Code::invalid) << packet;
  }
}

TEST(GuardProtocol, replies_and_events_survive_a_round_trip) {
  GuardStatus status{Instant(1s), Instant::max(), true, 5, {}, {}};
  status.vms.push_back({VmId("vm-1"), Epoch{7}, ha::Guard::State::frozen, 9, "because"});
  status.slots.push_back({DatastoreId("ds-1"), "/mnt", true, Instant(1s), 3ms, 2, "slow"});
  EXPECT_EQ(*decode_reply(encode_reply({}, status)), status);
  const auto refused = decode_reply(encode_reply(Error{Code::conflict, "No."}, std::nullopt));
  EXPECT_EQ(refused.code(), Code::conflict);
  EXPECT_EQ(refused.error().what, "No.");
  GuardEvent event;
  event.kind = GuardEvent::Kind::thawed;
  event.vm = status.vms[0];
  EXPECT_EQ(*decode_event(encode(event)), event);
  GuardEvent slot;
  slot.kind = GuardEvent::Kind::slot_lost;
  slot.slot = status.slots[0];
  EXPECT_EQ(*decode_event(encode(slot)), slot);
}

TEST(GuardProtocol, a_damaged_state_file_is_corrupt) {
  EXPECT_EQ(*decode_state(encode_state({{kAdmission}, {}})), (GuardState{{kAdmission}, {}}));
  EXPECT_EQ(decode_state(encode_state({{kAdmission}, {}}).substr(0, 40)).code(), Code::corrupt);
  EXPECT_EQ(decode_state(R"({"format":2,"vms":[]})").code(), Code::corrupt);
}

}  // namespace
}  // namespace hf::guard
