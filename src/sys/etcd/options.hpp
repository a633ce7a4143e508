#pragma once
// How to reach an etcd cluster. A plain value.
#include <optional>
#include <string>
#include <vector>

#include "port/store.hpp"

namespace hf::etcd {

// Paths of PEM files. Read once, when the store is opened.
struct EtcdTls {
  std::string ca_file;    // who must have signed the members' certificates
  std::string cert_file;  // ours
  std::string key_file;
};

struct EtcdOptions {
  std::vector<std::string> endpoints;  // "10.77.0.1:2379", the preferred one first
  std::string prefix;                  // "/holdfast/<cluster id>/": put before every key, not seen by callers
  std::optional<EtcdTls> tls;          // none: plain TCP
  Store::Options store;
};

}  // namespace hf::etcd
