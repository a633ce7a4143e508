// Goal: members join and leave a running cluster, also over TLS. Method: real etcd processes and certificates.
#include <gtest/gtest.h>

#include <fstream>

#include "port/store_recorder.hpp"
#include "sys/etcd/test_cluster.hpp"

namespace hf::etcd {
namespace {

using contract::put;
using test::Cluster;
using test::eventually;

Status join(Cluster& cluster, Members& members, const std::string& name) {
  test::Process& process = cluster.prepare(name);
  const std::string url = cluster.url_of(process);
  TRY_ASSIGN(const Member added, members.add_member(url, true));
  TRY_ASSIGN(const auto present, members.list_members());
  TRY_ASSIGN(process.config.initial_cluster, initial_cluster_of(present, name, url));
  process.config.state = MemberConfig::State::existing;
  process.start();
  Status promoted;
  if (!eventually([&] { return (promoted = members.promote_member(added.id)).ok(); })) return promoted;
  return {};
}

// Goal: a cluster of one grows to three while it works, survives the loss of its first member, and shrinks
// again.
TEST(Members, a_cluster_grows_from_one_to_three_and_shrinks) {
  Cluster cluster(1);
  auto store = Cluster::ready(cluster.options());
  ASSERT_NE(store, nullptr);
  ASSERT_TRUE(store->commit(put("a", "1")).ok());
  auto opened = Members::open(cluster.options(20s));
  ASSERT_TRUE(opened.ok());
  Members& members = **opened;
  for (const char* name : {"host2", "host3"}) {
    const Status joined = join(cluster, members, name);
    ASSERT_TRUE(joined.ok()) << joined.error().what;
  }
  const auto three = members.list_members();
  ASSERT_EQ(three->size(), 3u);
  for (const auto& member : *three) EXPECT_FALSE(member.learner);

  cluster.members[0]->kill();
  store = Cluster::ready(cluster.options(20s));
  ASSERT_NE(store, nullptr);
  EXPECT_EQ(store->get("a")->value, "1");
  ASSERT_TRUE(store->commit(put("b", "1")).ok());

  auto rest = Members::open(cluster.options(20s));
  for (const auto& member : *three)
    if (member.name == "host1") {
      const Status removed = (*rest)->remove_member(member.id);
      EXPECT_TRUE(removed.ok()) << removed.error().what;
    }
  EXPECT_EQ((*rest)->list_members()->size(), 2u);
  EXPECT_EQ((*rest)->remove_member(12345).code(), Code::not_found);
}

std::string make_certificates(const std::string& folder, const std::string& name) {
  const std::string at = folder + "/" + name;
  return test::shell(
      "set -e; exec 2>&1; "
      "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=" +
      name +
      "-ca"
      " -keyout " +
      at + "-ca.key -out " + at +
      "-ca.pem; "
      "openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=" +
      name + " -keyout " + at + ".key -out " + at +
      ".csr; "
      "printf 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n' > " +
      at +
      ".ext; "
      "openssl x509 -req -in " +
      at + ".csr -CA " + at + "-ca.pem -CAkey " + at +
      "-ca.key -CAcreateserial -days 2"
      " -extfile " +
      at + ".ext -out " + at + ".pem; echo all made");
}

// Goal: members and clients show each other certificates, and no one gets in without. Method: a second CA,
// and no TLS.
TEST(EtcdTls, both_sides_must_show_a_certificate_of_the_cluster) {
  test::TempFolder folder;
  for (const char* name : {"ours", "theirs"}) {
    const std::string out = make_certificates(folder.path(), name);
    ASSERT_NE(out.find("all made"), std::string::npos) << out;
  }
  const auto tls = [&](const std::string& ca, const std::string& own) {
    return EtcdTls{folder.path() + "/" + ca + "-ca.pem", folder.path() + "/" + own + ".pem",
                   folder.path() + "/" + own + ".key"};
  };
  Cluster cluster(3, tls("ours", "ours"));
  auto store = Cluster::ready(cluster.options());
  ASSERT_NE(store, nullptr);
  ASSERT_TRUE(store->commit(put("a", "1")).ok());
  contract::Recorder seen;
  auto watch = store->watch("", seen);
  EXPECT_TRUE(seen.wait_for_state({{"a", "1"}}));

  auto options = cluster.options(1s);
  options.tls = tls("ours", "theirs");
  EXPECT_EQ((*EtcdStore::open(options))->get("a").code(), Code::unavailable);
  options.tls = tls("theirs", "ours");
  EXPECT_EQ((*EtcdStore::open(options))->get("a").code(), Code::unavailable);
  options.tls.reset();
  EXPECT_EQ((*EtcdStore::open(options))->get("a").code(), Code::unavailable);
  options.tls = tls("absent", "ours");
  EXPECT_EQ(EtcdStore::open(options).code(), Code::not_found);
}

}  // namespace
}  // namespace hf::etcd
