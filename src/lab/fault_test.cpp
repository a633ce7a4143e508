// Goal: the words for faults are understood, and others are refused with those that are.
#include "lab/fault.hpp"

#include <gtest/gtest.h>

namespace hf::lab {
namespace {

TEST(Fault, every_form_is_understood) {
  const auto is = [](const char* text, Fault::Kind kind, const char* target, const char* mode) {
    const auto fault = parse_fault(text);
    return fault.ok() && *fault == Fault{.kind = kind, .target = target, .mode = mode};
  };
  EXPECT_TRUE(is("power", Fault::Kind::power, "", ""));
  EXPECT_TRUE(is("hang", Fault::Kind::hang, "", ""));
  EXPECT_TRUE(is("net", Fault::Kind::net, "", ""));
  EXPECT_TRUE(is("net=motion", Fault::Kind::net, "motion", ""));
  EXPECT_TRUE(is("storage", Fault::Kind::storage, "", "apd"));
  EXPECT_TRUE(is("storage=shared1", Fault::Kind::storage, "shared1", "apd"));
  EXPECT_TRUE(is("storage=shared1:pdl", Fault::Kind::storage, "shared1", "pdl"));
  EXPECT_TRUE(is("link=mgmt:rate=10mbit", Fault::Kind::link, "mgmt", "10mbit"));
  EXPECT_TRUE(is("process=etcd", Fault::Kind::process, "etcd", "kill"));
  EXPECT_TRUE(is("process=etcd:stop", Fault::Kind::process, "etcd", "stop"));
}

TEST(Fault, anything_else_is_refused) {
  for (const char* text :
       {"", "fire", "power=1", "hang=x", "net=lan", "net=", "net=mgmt:x", "storage=", "storage=a:x",
        "storage=a:", "link", "link=mgmt", "link=mgmt:10mbit", "link=mgmt:rate=", "link=mgmt:rate=10x",
        "link=mgmt:rate=10mbit x", "process", "process=", "process=x:burn"}) {
    const auto fault = parse_fault(text);
    ASSERT_FALSE(fault.ok()) << text;
    EXPECT_EQ(fault.code(), Code::invalid) << text;
  }
}

}  // namespace
}  // namespace hf::lab
