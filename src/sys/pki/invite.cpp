#include <openssl/evp.h>

#include <nlohmann/json.hpp>

#include "sys/pki/pki.hpp"

namespace hf::pki {
namespace {
using nlohmann::json;

std::string to_base64(const std::string& text) {
  std::string out((text.size() + 2) / 3 * 4 + 1, '\0');
  const int size =
      EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                      reinterpret_cast<const unsigned char*>(text.data()), static_cast<int>(text.size()));
  out.resize(static_cast<std::size_t>(size));
  return out;
}

Result<std::string> from_base64(const std::string& text) {
  const Error damaged{Code::invalid,
                      "This is not an invite, or a part of it is missing: copy the whole line."};
  if (text.empty() || text.size() % 4 != 0 || text.size() > (1U << 20)) return damaged;
  std::string out(text.size() / 4 * 3, '\0');
  const int size =
      EVP_DecodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                      reinterpret_cast<const unsigned char*>(text.data()), static_cast<int>(text.size()));
  if (size < 0) return damaged;
  std::size_t padding = 0;
  while (padding < 2 && text[text.size() - 1 - padding] == '=') ++padding;
  out.resize(static_cast<std::size_t>(size) - padding);
  return out;
}
}  // namespace

std::string encode_ca(const KeyPair& ca) {
  return json{{"format", 1}, {"certificate", ca.certificate_pem}, {"key", ca.key_pem}}.dump();
}

Result<KeyPair> decode_ca(const std::string& text) {
  const json j = json::parse(text, nullptr, false);
  if (!j.is_object() || j.value("format", 0) < 1 || !j.contains("certificate") ||
      !j["certificate"].is_string() || !j.contains("key") || !j["key"].is_string()) {
    return Error{Code::corrupt, "The cluster's CA in the store cannot be read."};
  }
  return KeyPair{j["certificate"].get<std::string>(), j["key"].get<std::string>()};
}

std::string encode(const Invite& invite) {
  const json j{{"holdfast_invite", 1},
               {"cluster_id", invite.cluster_id},
               {"cluster_name", invite.cluster_name},
               {"host", invite.host},
               {"ca", invite.credentials.ca_pem},
               {"certificate", invite.credentials.own.certificate_pem},
               {"key", invite.credentials.own.key_pem},
               {"endpoints", invite.endpoints},
               {"store", {{"kind", invite.store_kind}, {"endpoints", invite.store_endpoints}}},
               {"expires", invite.expires}};
  return to_base64(j.dump());
}

Result<Invite> decode_invite(const std::string& line, WallMs now) {
  const auto first = line.find_first_not_of(" \t\r\n");
  if (first == std::string::npos) return Error{Code::invalid, "The invite is empty."};
  TRY_ASSIGN(const std::string text,
             from_base64(line.substr(first, line.find_last_not_of(" \t\r\n") - first + 1)));
  Invite invite;
  try {
    const json j = json::parse(text);
    if (j.at("holdfast_invite").get<int>() != 1) {
      return Error{Code::unsupported,
                   "The invite was made by a later version: update holdfast on this host."};
    }
    invite.cluster_id = j.at("cluster_id");
    invite.cluster_name = j.at("cluster_name");
    invite.host = j.at("host");
    invite.credentials = {j.at("ca"), {j.at("certificate"), j.at("key")}};
    invite.endpoints = j.at("endpoints").get<std::vector<std::string>>();
    invite.store_kind = j.at("store").at("kind");
    invite.store_endpoints = j.at("store").at("endpoints").get<std::vector<std::string>>();
    invite.expires = j.at("expires");
  } catch (const json::exception&) {
    return Error{Code::invalid, "This is not an invite, or a part of it is missing: copy the whole line."};
  }
  if (invite.expires <= now) {
    return Error{Code::denied, "The invite has expired: make a new one with `holdfast cluster invite`."};
  }
  return invite;
}

}  // namespace hf::pki
