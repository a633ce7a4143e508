// Goal: an etcd member is started with the right words. Method: configuration in, command line out.
#include "sys/etcd/member.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace hf::etcd {
namespace {

MemberConfig config() {
  MemberConfig config;
  config.name = "host1";
  config.data_dir = "/var/lib/holdfast/etcd";
  config.client_address = "10.77.0.1:2379";
  config.peer_address = "10.77.0.1:2380";
  config.initial_cluster = {{"host1", "http://10.77.0.1:2380"}, {"host2", "http://10.77.0.2:2380"}};
  config.token = "c-1";
  return config;
}

bool has(const std::vector<std::string>& argv, const std::string& word) {
  return std::find(argv.begin(), argv.end(), word) != argv.end();
}

TEST(MemberCommand, names_the_cluster_and_its_timing) {
  const auto argv = member_command(config());
  EXPECT_EQ(argv.front(), "/usr/bin/etcd");
  EXPECT_TRUE(has(argv, "--initial-cluster=host1=http://10.77.0.1:2380,host2=http://10.77.0.2:2380"));
  EXPECT_TRUE(has(argv, "--initial-cluster-state=new"));
  EXPECT_TRUE(has(argv, "--heartbeat-interval=100"));
  EXPECT_TRUE(has(argv, "--election-timeout=1000"));
  EXPECT_TRUE(has(argv, "--listen-client-urls=http://10.77.0.1:2379"));
  EXPECT_FALSE(has(argv, "--client-cert-auth=true"));
}

TEST(MemberCommand, tls_asks_both_sides_for_certificates) {
  auto secure = config();
  secure.state = MemberConfig::State::existing;
  secure.client_tls = EtcdTls{"/ca.pem", "/cert.pem", "/key.pem"};
  secure.peer_tls = secure.client_tls;
  const auto argv = member_command(secure);
  for (const char* word :
       {"--initial-cluster-state=existing", "--cert-file=/cert.pem", "--key-file=/key.pem",
        "--trusted-ca-file=/ca.pem", "--client-cert-auth=true", "--peer-cert-file=/cert.pem",
        "--peer-client-cert-auth=true", "--advertise-client-urls=https://10.77.0.1:2379",
        "--listen-peer-urls=https://10.77.0.1:2380"})
    EXPECT_TRUE(has(argv, word)) << word;
}

TEST(MemberUnit, quotes_what_systemd_would_expand) {
  auto odd = config();
  odd.data_dir = "/srv/a b%c$d\"e";
  const std::string unit = member_unit(odd);
  EXPECT_NE(unit.find("ExecStart=\"/usr/bin/etcd\" \\\n"), std::string::npos);
  EXPECT_NE(unit.find("\"--data-dir=/srv/a b%%c$$d\\\"e\""), std::string::npos);
  EXPECT_NE(unit.find("Type=exec\n"), std::string::npos) << "a boot must not wait for the other members";
  EXPECT_NE(unit.find("Restart=always\n"), std::string::npos);
  EXPECT_EQ(unit.find("User="), std::string::npos);
  EXPECT_NE(unit.find("ReadWritePaths=\"/srv/a b%%c$d"), std::string::npos);
}

TEST(InitialCluster, names_the_members_and_the_one_that_joins) {
  const std::vector<Member> members = {{1, "host1", {"http://a:1"}, {}, false},
                                       {2, "", {"http://b:1"}, {}, true}};
  const auto cluster = initial_cluster_of(members, "host2", "http://b:1");
  ASSERT_TRUE(cluster.ok());
  EXPECT_EQ(*cluster, (std::map<std::string, std::string>{{"host1", "http://a:1"}, {"host2", "http://b:1"}}));
  EXPECT_EQ(initial_cluster_of(members, "host3", "http://c:1").code(), Code::conflict);
  EXPECT_EQ(initial_cluster_of({members[0]}, "host3", "http://c:1").code(), Code::not_found);
}

}  // namespace
}  // namespace hf::etcd
