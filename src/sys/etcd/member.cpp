#include "sys/etcd/member.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "sys/etcd/endpoints.hpp"

namespace hf::etcd {
namespace {

std::string url(const std::string& address, bool tls) { return (tls ? "https://" : "http://") + address; }

void add_tls(std::vector<std::string>& argv, const std::string& kind, const EtcdTls& tls) {
  argv.push_back("--" + kind + "cert-file=" + tls.cert_file);
  argv.push_back("--" + kind + "key-file=" + tls.key_file);
  argv.push_back("--" + kind + "trusted-ca-file=" + tls.ca_file);
  argv.push_back("--" + kind + "client-cert-auth=true");
}

// One word of a setting: systemd takes % and quotes for itself, and $ in ExecStart=.
std::string unit_word(const std::string& word, bool command) {
  std::string out = "\"";
  for (const char c : word) {
    if (c == '%' || (c == '$' && command)) out += c;
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + '"';
}

Member to_member(const pb::Member& from) {
  return Member{from.id(),
                from.name(),
                {from.peerurls().begin(), from.peerurls().end()},
                {from.clienturls().begin(), from.clienturls().end()},
                from.islearner()};
}

}  // namespace

std::string peer_url(const std::string& peer_address, bool tls) { return url(peer_address, tls); }

std::vector<std::string> member_command(const MemberConfig& config) {
  const std::string client = url(config.client_address, config.client_tls.has_value());
  const std::string peer = url(config.peer_address, config.peer_tls.has_value());
  std::vector<std::string> cluster;
  for (const auto& [name, member_url] : config.initial_cluster) cluster.push_back(name + "=" + member_url);
  std::vector<std::string> argv = {
      config.binary,
      "--name=" + config.name,
      "--data-dir=" + config.data_dir,
      "--listen-client-urls=" + client,
      "--advertise-client-urls=" + client,
      "--listen-peer-urls=" + peer,
      "--initial-advertise-peer-urls=" + peer,
      fmt::format("--initial-cluster={}", fmt::join(cluster, ",")),
      std::string("--initial-cluster-state=") +
          (config.state == MemberConfig::State::fresh ? "new" : "existing"),
      "--initial-cluster-token=" + config.token,
      fmt::format("--heartbeat-interval={}", config.heartbeat.count()),
      fmt::format("--election-timeout={}", config.election_timeout.count()),
      "--pre-vote=true",  // a member that comes back does not unseat a working leader
      "--auto-compaction-mode=periodic",
      fmt::format("--auto-compaction-retention={}m", config.keep_history.count()),
      fmt::format("--quota-backend-bytes={}", config.quota_bytes),
      "--logger=zap",
      "--log-outputs=stderr",
      "--log-level=warn",
  };
  if (config.client_tls) add_tls(argv, "", *config.client_tls);
  if (config.peer_tls) add_tls(argv, "peer-", *config.peer_tls);
  return argv;
}

std::string member_unit(const MemberConfig& config) {
  std::string words;
  for (const auto& word : member_command(config)) words += " \\\n  " + unit_word(word, true);
  // The first word of ExecStart= must be the path, not a quoted line break.
  const std::string command = words.substr(words.find('"'));
  return fmt::format(R"([Unit]
Description=Holdfast's cluster store (etcd member {name})
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={command}
CapabilityBoundingSet=
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={data}
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
Restart=always
RestartSec=1
LimitNOFILE=65536
Nice=-10
IOSchedulingClass=best-effort
IOSchedulingPriority=0
OOMScoreAdjust=-900

[Install]
WantedBy=multi-user.target
)",
                     fmt::arg("name", config.name), fmt::arg("data", unit_word(config.data_dir, false)),
                     fmt::arg("command", command));
}

Result<std::map<std::string, std::string>> initial_cluster_of(const std::vector<Member>& members,
                                                              const std::string& name,
                                                              const std::string& peer_url) {
  std::map<std::string, std::string> cluster;
  for (const auto& member : members) {
    const std::string member_url = member.peer_urls.empty() ? "" : member.peer_urls.front();
    if (member_url == peer_url) {
      cluster[name] = peer_url;
      continue;
    }
    if (member.name.empty())
      return Error{Code::conflict,
                   fmt::format("The member at {} was added but has not started. Start it or remove it"
                               " first.",
                               member_url)};
    cluster[member.name] = member_url;
  }
  if (!cluster.contains(name))
    return Error{Code::not_found, fmt::format("No member with the address {} was added.", peer_url)};
  return cluster;
}

Result<std::unique_ptr<Members>> Members::open(const EtcdOptions& options) {
  TRY_ASSIGN(auto endpoints, Endpoints::open(options));
  return std::unique_ptr<Members>(new Members(std::move(endpoints)));
}

Members::Members(std::shared_ptr<Endpoints> endpoints) : endpoints_(std::move(endpoints)) {}
Members::~Members() = default;

Result<std::vector<Member>> Members::list_members() {
  pb::MemberListRequest request;
  request.set_linearizable(true);  // 3.4 ignores it
  pb::MemberListResponse response;
  TRY(endpoints_->read([&](Endpoint& endpoint, grpc::ClientContext& context) {
    return endpoint.cluster->MemberList(&context, request, &response);
  }));
  std::vector<Member> members;
  for (const auto& member : response.members()) members.push_back(to_member(member));
  return members;
}

Result<Member> Members::add_member(const std::string& peer_url, bool learner) {
  pb::MemberAddRequest request;
  request.add_peerurls(peer_url);
  request.set_islearner(learner);
  pb::MemberAddResponse response;
  TRY(endpoints_->once([&](Endpoint& endpoint, grpc::ClientContext& context) {
    return endpoint.cluster->MemberAdd(&context, request, &response);
  }));
  return to_member(response.member());
}

Status Members::promote_member(std::uint64_t id) {
  pb::MemberPromoteRequest request;
  request.set_id(id);
  return endpoints_->once([&](Endpoint& endpoint, grpc::ClientContext& context) {
    pb::MemberPromoteResponse response;
    return endpoint.cluster->MemberPromote(&context, request, &response);
  });
}

Status Members::remove_member(std::uint64_t id) {
  pb::MemberRemoveRequest request;
  request.set_id(id);
  return endpoints_->once([&](Endpoint& endpoint, grpc::ClientContext& context) {
    pb::MemberRemoveResponse response;
    return endpoint.cluster->MemberRemove(&context, request, &response);
  });
}

}  // namespace hf::etcd
