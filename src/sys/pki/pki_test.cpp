// Goal: only certificates of this cluster's CA are accepted, keys are private on disk, an invite survives the
// trip.
#include "sys/pki/pki.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>

#include "base/testing/temp_folder.hpp"
#include "sys/process/small_file.hpp"

namespace hf::pki {
namespace {

class Pki : public ::testing::Test {
 protected:
  KeyPair issue_host(std::chrono::hours validity = std::chrono::hours(24)) {
    return *issue(ca_, {Role::host, "host1", {"10.77.0.1"}, validity});
  }
  test::TempFolder folder_;
  KeyPair ca_ = *make_ca("test");
};

TEST_F(Pki, a_host_certificate_is_verified_with_its_role_and_name) {
  const auto identity = verify(ca_.certificate_pem, issue_host().certificate_pem);
  ASSERT_TRUE(identity.ok()) << identity.error().what;
  EXPECT_EQ(identity->role, Role::host);
  EXPECT_EQ(identity->name, "host1");
}

TEST_F(Pki, an_admin_certificate_is_an_admin) {
  const auto admin = issue(ca_, {Role::admin, "root", {}, std::chrono::hours(24)});
  EXPECT_EQ(verify(ca_.certificate_pem, admin->certificate_pem)->role, Role::admin);
}

TEST_F(Pki, another_ca_is_denied) {
  const KeyPair other = *make_ca("test");
  EXPECT_EQ(verify(other.certificate_pem, issue_host().certificate_pem).code(), Code::denied);
}

TEST_F(Pki, an_expired_certificate_is_denied) {
  EXPECT_EQ(verify(ca_.certificate_pem, issue_host(std::chrono::hours(-1)).certificate_pem).code(),
            Code::denied);
}

TEST_F(Pki, the_ca_itself_has_no_role) {
  EXPECT_EQ(verify(ca_.certificate_pem, ca_.certificate_pem).code(), Code::denied);
}

TEST_F(Pki, a_host_certificate_cannot_issue) {
  const KeyPair host = issue_host();
  const auto forged = issue(host, {Role::admin, "evil", {}, std::chrono::hours(24)});
  ASSERT_TRUE(forged.ok());
  EXPECT_EQ(verify(ca_.certificate_pem, forged->certificate_pem).code(), Code::denied);
}

TEST_F(Pki, reissue_keeps_the_key) {
  const KeyPair host = issue_host(std::chrono::hours(1));
  const auto renewed = reissue(ca_, host.certificate_pem, {Role::host, "host1", {}, std::chrono::hours(48)});
  ASSERT_TRUE(renewed.ok());
  EXPECT_TRUE(verify(ca_.certificate_pem, *renewed).ok());
  EXPECT_NE(*renewed, host.certificate_pem);
  EXPECT_EQ(*key_fingerprint(*renewed), *key_fingerprint(host.certificate_pem));
  EXPECT_NE(*key_fingerprint(*renewed), *key_fingerprint(issue_host().certificate_pem));
}

TEST_F(Pki, names_that_would_inject_into_the_extension_are_refused) {
  EXPECT_EQ(issue(ca_, {Role::host, "a,IP:1.2.3.4", {}, std::chrono::hours(1)}).code(), Code::invalid);
  EXPECT_EQ(issue(ca_, {Role::host, "host1", {"a\nb"}, std::chrono::hours(1)}).code(), Code::invalid);
  EXPECT_EQ(issue(ca_, {Role::host, "", {}, std::chrono::hours(1)}).code(), Code::invalid);
}

TEST_F(Pki, saved_credentials_load_again_and_the_key_is_private) {
  const Credentials credentials{ca_.certificate_pem, issue_host()};
  ASSERT_TRUE(save(credentials, folder_ / "pki").ok());
  EXPECT_EQ(*load(folder_ / "pki"), credentials);
  struct stat info{};
  ::stat((folder_ / "pki/key.pem").c_str(), &info);
  EXPECT_EQ(info.st_mode & 0777U, 0600U);
  ::stat((folder_ / "pki/cert.pem").c_str(), &info);
  EXPECT_EQ(info.st_mode & 0777U, 0644U);
  EXPECT_EQ(load(folder_ / "none").code(), Code::not_found);
}

TEST_F(Pki, the_ca_secret_survives_a_round_trip) {
  EXPECT_EQ(*decode_ca(encode_ca(ca_)), ca_);
  EXPECT_EQ(decode_ca("{}").code(), Code::corrupt);
  EXPECT_EQ(decode_ca("nonsense").code(), Code::corrupt);
}

TEST_F(Pki, an_invite_survives_a_round_trip) {
  const Invite invite{"c-1",
                      "lab",
                      "host2",
                      {ca_.certificate_pem, issue_host()},
                      {"10.0.0.1:7443"},
                      "etcd",
                      {"https://10.0.0.1:2379"},
                      2000};
  const std::string line = encode(invite);
  EXPECT_EQ(line.find('\n'), std::string::npos);
  EXPECT_EQ(*decode_invite("  " + line + "\n", 1000), invite);
  EXPECT_EQ(decode_invite(line, 2000).code(), Code::denied);
}

TEST_F(Pki, a_damaged_invite_is_invalid) {
  const std::string line = encode(Invite{"c", "n", "h", {}, {}, "etcd", {}, 5});
  EXPECT_EQ(decode_invite("", 1).code(), Code::invalid);
  EXPECT_EQ(decode_invite(line.substr(0, line.size() / 2 / 4 * 4), 1).code(), Code::invalid);
  EXPECT_EQ(decode_invite("not base64!", 1).code(), Code::invalid);
  EXPECT_EQ(decode_invite("e30=", 1).code(), Code::invalid);
}

}  // namespace
}  // namespace hf::pki
