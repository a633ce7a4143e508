#pragma once
// The cluster's certificates: one CA (ECDSA P-256), certificates of hosts (O=holdfast-host, CN=host name) and
// of administrators (O=holdfast-admin). Everything is PEM text; OpenSSL stays inside pki.cpp. Stateless; any
// thread. Never logs key material; an Error never contains any.
#include <string>
#include <vector>

#include "base/result.hpp"
#include "base/time.hpp"

namespace hf::pki {

inline constexpr int kCaDays = 3650;
inline constexpr int kHostDays = 3650;
inline constexpr int kAdminDays = 3650;
// An invite's certificate ends with the invite; POST /v1/members gives the lasting one.
inline constexpr int kInviteHours = 24;

struct KeyPair {
  std::string certificate_pem;
  std::string key_pem;
  bool operator==(const KeyPair&) const = default;
};

enum class Role { admin, host };

struct Identity {
  Role role = Role::admin;
  std::string name;
};

struct IssueRequest {
  Role role = Role::host;
  std::string name;  // CN
  std::vector<std::string>
      addresses;  // SAN besides the name, 127.0.0.1, ::1 and localhost: IP addresses or DNS names
  std::chrono::hours validity = std::chrono::hours(24 * kHostDays);
};

Result<KeyPair> make_ca(const std::string& cluster_name);
Result<KeyPair> issue(const KeyPair& ca, const IssueRequest& request);
// A new certificate for the key that `certificate_pem` certifies.
Result<std::string> reissue(const KeyPair& ca, const std::string& certificate_pem,
                            const IssueRequest& request);

// Signed by this CA, valid now, and a role known to the product; Code::denied otherwise.
Result<Identity> verify(const std::string& ca_pem, const std::string& certificate_pem);
// Who the certificate names, without any check. Code::denied if it has no role of ours.
Result<Identity> identity_of(const std::string& certificate_pem);
// SHA-256 of its public key, which a reissued certificate shares: "ab:cd:...".
Result<std::string> key_fingerprint(const std::string& certificate_pem);

// ca.pem, cert.pem (0644) and key.pem (0600) in one folder.
struct Credentials {
  std::string ca_pem;
  KeyPair own;
  bool operator==(const Credentials&) const = default;
};
Status save(const Credentials& credentials, const std::string& folder);
Result<Credentials> load(const std::string& folder);

// CA with its key, as the store keeps it under secrets/ca.
std::string encode_ca(const KeyPair& ca);
Result<KeyPair> decode_ca(const std::string& text);

// What a new host needs to join: one line of base64. A secret until it has expired.
struct Invite {
  std::string cluster_id, cluster_name;
  std::string host;
  Credentials credentials;             // of the host; its certificate ends at `expires`
  std::vector<std::string> endpoints;  // API: "10.0.0.1:7443"
  std::string store_kind;              // "etcd"
  std::vector<std::string> store_endpoints;
  WallMs expires = 0;
  bool operator==(const Invite&) const = default;
};
std::string encode(const Invite& invite);
// Code::invalid if it is not an invite or was damaged; Code::denied if it has expired at `now`.
Result<Invite> decode_invite(const std::string& line, WallMs now);

}  // namespace hf::pki
