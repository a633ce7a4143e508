// Goal: what was saved loads the same; a mistake in the file is named by its key, and never means a default.
#include "config/config.hpp"

#include <gtest/gtest.h>

#include "base/testing/temp_folder.hpp"

namespace hf::config {
namespace {

std::string mistake(const std::string& text) {
  const auto config = parse_config(text, "config.json");
  EXPECT_FALSE(config.ok());
  if (config.ok()) return "";
  EXPECT_EQ(config.code(), Code::invalid);
  return config.error().what;
}

TEST(HostConfig, what_was_saved_loads_the_same) {
  HostConfig config;
  config.host = "host1";
  config.cluster_id = "c-1";
  config.api_advertise = "10.0.0.1:7443";
  config.store = {StoreKind::etcd, "/x", {"https://10.0.0.1:2379"}, "/a", "/b", "/c", "/p/"};
  config.qemu = {"/usr/bin/qemu", 64055, 64055, "/shim.so", 5};
  config.motion_address = "10.0.1.1";
  config.memory_mib = 4096;
  const test::TempFolder folder;
  ASSERT_TRUE(save_config(config, folder / "a/config.json").ok());
  const auto loaded = load_config(folder / "a/config.json");
  ASSERT_TRUE(loaded.ok()) << loaded.error().what;
  EXPECT_EQ(*loaded, config);
}

TEST(HostConfig, missing_keys_take_their_defaults) {
  const auto config = parse_config(R"({"host":"h","cluster_id":"c"})", "x");
  ASSERT_TRUE(config.ok());
  EXPECT_EQ(config->api_listen, "0.0.0.0:7443");
  EXPECT_EQ(config->store.kind, StoreKind::sqlite);
}

TEST(HostConfig, unknown_keys_are_named) {
  EXPECT_EQ(mistake(R"({"host":"h","cluster_id":"c","api_lisen":"x"})"),
            "config.json: \"api_lisen\" is not a known key.");
  EXPECT_EQ(mistake(R"({"host":"h","cluster_id":"c","qemu":{"user":"x"}})"),
            "config.json: \"qemu.user\" is not a known key.");
}

TEST(HostConfig, wrong_values_are_named) {
  EXPECT_EQ(mistake(R"({"host":1,"cluster_id":"c"})"), "config.json: \"host\" must be a text.");
  EXPECT_EQ(mistake(R"({"host":"h","cluster_id":"c","store":{"kind":"mysql"}})"),
            "config.json: \"store.kind\" must be \"sqlite\" or \"etcd\".");
  EXPECT_EQ(mistake(R"({"host":"h","cluster_id":"c","store":{"kind":"etcd"}})"),
            "config.json: \"store.endpoints\" is needed with kind \"etcd\".");
  EXPECT_EQ(mistake(R"({"host":"h","cluster_id":"c","cpus":-1})"),
            "config.json: \"cpus\" must be a whole number from 0 to 4096.");
  EXPECT_NE(mistake("{").find("is not valid JSON"), std::string::npos);
  EXPECT_NE(mistake("[]").find("must be an object"), std::string::npos);
  EXPECT_NE(mistake("{}").find("\"host\" is needed"), std::string::npos);
}

TEST(Config, motion_ports_are_a_range) {
  const auto with = [](const std::string& ports) {
    return parse_config(R"({"host":"a","cluster_id":"c","motion_ports":")" + ports + R"("})", "config.json");
  };
  EXPECT_EQ(with("7500-7501")->motion_ports, "7500-7501");
  for (const auto* wrong : {"7500", "7501-7500", "0-7500", "7500-65536", "7500-7501x", ""}) {
    EXPECT_EQ(with(wrong).code(), Code::invalid) << wrong;
  }
}

}  // namespace
}  // namespace hf::config
