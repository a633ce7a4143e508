#include "sys/pki/tls.hpp"

#include <openssl/x509v3.h>

#include <utility>

#include "sys/pki/openssl.hpp"

namespace hf::tls {
namespace {
using pki::Certificate;
using pki::Key;
using pki::memory_of;
using pki::pem_of;

SSL_CTX* context_of(X509_STORE_CTX* verification) {
  auto* ssl =
      static_cast<SSL*>(X509_STORE_CTX_get_ex_data(verification, SSL_get_ex_data_X509_STORE_CTX_idx()));
  return SSL_get_SSL_CTX(ssl);
}

int refuse(X509_STORE_CTX* verification) {
  X509_STORE_CTX_set_error(verification, X509_V_ERR_APPLICATION_VERIFICATION);
  return 0;
}

// A host's certificate is what makes a peer one of the cluster, whatever address it has.
int check(int good_so_far, X509_STORE_CTX* verification, bool host_only) {
  if (good_so_far != 1 || X509_STORE_CTX_get_error_depth(verification) != 0) return good_so_far;
  const auto identity = pki::identity_of(pem_of(X509_STORE_CTX_get_current_cert(verification)));
  const auto* expected = static_cast<const std::string*>(SSL_CTX_get_app_data(context_of(verification)));
  const bool named = expected != nullptr && !expected->empty();
  const bool fits = identity.ok() && (identity->role == pki::Role::host || !(host_only || named)) &&
                    (!named || identity->name == *expected);
  return fits ? 1 : refuse(verification);
}
int check_client(int good_so_far, X509_STORE_CTX* verification) {
  return check(good_so_far, verification, false);
}
int check_server(int good_so_far, X509_STORE_CTX* verification) {
  return check(good_so_far, verification, true);
}

thread_local std::string last_alert;
thread_local bool last_alert_was_ours = false;

void note_alert(const SSL*, int where, int value) {
  // A peer that closes in the middle is told "decode error", if it can still be told: that refuses nobody.
  const bool refuses = (value >> 8) == SSL3_AL_FATAL && (value & 0xff) != SSL_AD_DECODE_ERROR;
  if ((where & SSL_CB_WRITE_ALERT) == SSL_CB_WRITE_ALERT && refuses) last_alert_was_ours = true;
  if ((where & SSL_CB_READ_ALERT) == SSL_CB_READ_ALERT && (value >> 8) == SSL3_AL_FATAL) {
    last_alert = SSL_alert_desc_string_long(value);
  }
}
}  // namespace

Status configure(SSL_CTX* context, const pki::Credentials& credentials, Side side) {
  const Certificate own(
      PEM_read_bio_X509(memory_of(credentials.own.certificate_pem).get(), nullptr, nullptr, nullptr));
  const Certificate ca(PEM_read_bio_X509(memory_of(credentials.ca_pem).get(), nullptr, nullptr, nullptr));
  const Key key(PEM_read_bio_PrivateKey(memory_of(credentials.own.key_pem).get(), nullptr, nullptr, nullptr));
  if (!own || !ca || !key)
    return Error{Code::invalid, "The certificate, its key or the CA's certificate is not PEM."};
  if (SSL_CTX_use_certificate(context, own.get()) != 1 || SSL_CTX_use_PrivateKey(context, key.get()) != 1 ||
      SSL_CTX_check_private_key(context) != 1) {
    return Error{Code::invalid, "The certificate and its key do not belong together."};
  }
  if (X509_STORE_add_cert(SSL_CTX_get_cert_store(context), ca.get()) != 1 ||
      SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1) {
    return Error{Code::failed, "OpenSSL cannot be configured for TLS 1.3."};
  }
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
  SSL_CTX_set_num_tickets(context, 0);
  SSL_CTX_set_info_callback(context, note_alert);
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
                     side == Side::server ? check_client : check_server);
  return {};
}

void expect_host(SSL_CTX* context, const std::string* name) {
  SSL_CTX_set_app_data(context, const_cast<std::string*>(name));
}

std::string peer_certificate(const SSL* connection) {
  const Certificate peer(SSL_get1_peer_certificate(connection));
  return pem_of(peer.get());
}

std::string take_alert() { return std::exchange(last_alert, std::string()); }

bool take_own_alert() { return std::exchange(last_alert_was_ours, false); }

}  // namespace hf::tls
