#include "sys/pki/pki.hpp"

#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include <array>
#include <memory>

#include "sys/pki/openssl.hpp"
#include "sys/process/small_file.hpp"

namespace hf::pki {
namespace {

using Name = std::unique_ptr<X509_NAME, Deleter<X509_NAME_free>>;
using Trust = std::unique_ptr<X509_STORE, Deleter<X509_STORE_free>>;
using TrustContext = std::unique_ptr<X509_STORE_CTX, Deleter<X509_STORE_CTX_free>>;
using Extension = std::unique_ptr<X509_EXTENSION, Deleter<X509_EXTENSION_free>>;

constexpr const char* kHostOrganization = "holdfast-host";
constexpr const char* kAdminOrganization = "holdfast-admin";
constexpr const char* kCaOrganization = "holdfast-ca";

Error crypto(const char* what) { return Error{Code::failed, std::string("OpenSSL cannot ") + what + "."}; }

std::string pem_of(EVP_PKEY* key) {
  const Bio bio(BIO_new(BIO_s_mem()));
  PEM_write_bio_PrivateKey(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr);
  return text_of(bio.get());
}

Result<Certificate> certificate_from(const std::string& pem) {
  const Bio bio = memory_of(pem);
  Certificate certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
  if (!certificate) return Error{Code::invalid, "This is not a certificate in PEM form."};
  return certificate;
}

Result<Key> key_from(const std::string& pem) {
  const Bio bio = memory_of(pem);
  Key key(PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr));
  if (!key) return Error{Code::invalid, "This is not a private key in PEM form."};
  return key;
}

Status set_name(X509_NAME* name, const char* organization, const std::string& common_name) {
  const auto add = [name](const char* field, const std::string& value) {
    return X509_NAME_add_entry_by_txt(name, field, MBSTRING_UTF8,
                                      reinterpret_cast<const unsigned char*>(value.data()),
                                      static_cast<int>(value.size()), -1, 0) == 1;
  };
  if (!add("O", organization) || !add("CN", common_name)) {
    return Error{Code::invalid,
                 "The name \"" + common_name + "\" cannot stand in a certificate (1 to 64 characters)."};
  }
  return {};
}

Status add_extension(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  const Extension extension(X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str()));
  if (!extension || X509_add_ext(certificate, extension.get(), -1) != 1)
    return crypto("add a certificate extension");
  return {};
}

Status set_serial_and_time(X509* certificate, std::chrono::hours validity) {
  std::array<unsigned char, 16> serial{};
  if (RAND_bytes(serial.data(), static_cast<int>(serial.size())) != 1) return crypto("make random numbers");
  serial[0] &= 0x7f;  // a serial number is positive
  const std::unique_ptr<BIGNUM, Deleter<BN_free>> number(BN_bin2bn(serial.data(), serial.size(), nullptr));
  BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(certificate));
  // An hour back: hosts whose clocks differ a little must be able to use a fresh certificate.
  X509_gmtime_adj(X509_getm_notBefore(certificate), -3600);
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(validity);
  X509_time_adj_ex(X509_getm_notAfter(certificate), static_cast<int>(seconds.count() / 86400),
                   static_cast<long>(seconds.count() % 86400), nullptr);
  return {};
}

bool is_address(const std::string& text) {
  const std::unique_ptr<ASN1_OCTET_STRING, Deleter<ASN1_OCTET_STRING_free>> address(
      a2i_IPADDRESS(text.c_str()));
  return address != nullptr;
}

bool is_plain(const std::string& text) {
  return !text.empty() && text.size() <= 253 &&
         text.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:_") ==
             std::string::npos;
}

// The alternative names as OpenSSL's configuration syntax; only plain names go in, so nothing can be
// injected.
Result<std::string> alternative_names(const IssueRequest& request) {
  std::string names = "DNS:localhost,IP:127.0.0.1,IP:::1";
  std::vector<std::string> wanted = request.addresses;
  wanted.insert(wanted.begin(), request.name);
  for (const auto& name : wanted) {
    if (!is_plain(name))
      return Error{Code::invalid, "\"" + name + "\" is neither an IP address nor a host name."};
    names += (is_address(name) ? ",IP:" : ",DNS:") + name;
  }
  return names;
}

Result<Certificate> make_certificate(const KeyPair& ca, EVP_PKEY* subject_key, const IssueRequest& request) {
  TRY_ASSIGN(const Certificate issuer, certificate_from(ca.certificate_pem));
  TRY_ASSIGN(const Key issuer_key, key_from(ca.key_pem));
  Certificate certificate(X509_new());
  X509_set_version(certificate.get(), X509_VERSION_3);
  TRY(set_serial_and_time(certificate.get(), request.validity));
  const bool host = request.role == Role::host;
  TRY(set_name(X509_get_subject_name(certificate.get()), host ? kHostOrganization : kAdminOrganization,
               request.name));
  X509_set_issuer_name(certificate.get(), X509_get_subject_name(issuer.get()));
  X509_set_pubkey(certificate.get(), subject_key);
  TRY(add_extension(certificate.get(), issuer.get(), NID_basic_constraints, "critical,CA:FALSE"));
  TRY(add_extension(certificate.get(), issuer.get(), NID_key_usage, "critical,digitalSignature"));
  TRY(add_extension(certificate.get(), issuer.get(), NID_ext_key_usage,
                    host ? "serverAuth,clientAuth" : "clientAuth"));
  if (host) {
    TRY_ASSIGN(const std::string names, alternative_names(request));
    TRY(add_extension(certificate.get(), issuer.get(), NID_subject_alt_name, names));
  }
  if (X509_sign(certificate.get(), issuer_key.get(), EVP_sha256()) == 0) return crypto("sign a certificate");
  return certificate;
}

std::string field_of(X509* certificate, int nid) {
  std::array<char, 256> text{};
  const int size =
      X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), nid, text.data(), text.size());
  return size > 0 ? std::string(text.data(), static_cast<std::size_t>(size)) : std::string();
}

}  // namespace

Result<KeyPair> make_ca(const std::string& cluster_name) {
  const Key key(EVP_EC_gen("P-256"));
  if (!key) return crypto("make a key");
  const Certificate certificate(X509_new());
  X509_set_version(certificate.get(), X509_VERSION_3);
  TRY(set_serial_and_time(certificate.get(), std::chrono::hours(24 * kCaDays)));
  TRY(set_name(X509_get_subject_name(certificate.get()), kCaOrganization, cluster_name));
  X509_set_issuer_name(certificate.get(), X509_get_subject_name(certificate.get()));
  X509_set_pubkey(certificate.get(), key.get());
  TRY(add_extension(certificate.get(), certificate.get(), NID_basic_constraints,
                    "critical,CA:TRUE,pathlen:0"));
  TRY(add_extension(certificate.get(), certificate.get(), NID_key_usage, "critical,keyCertSign,cRLSign"));
  TRY(add_extension(certificate.get(), certificate.get(), NID_subject_key_identifier, "hash"));
  if (X509_sign(certificate.get(), key.get(), EVP_sha256()) == 0) return crypto("sign a certificate");
  return KeyPair{pem_of(certificate.get()), pem_of(key.get())};
}

Result<KeyPair> issue(const KeyPair& ca, const IssueRequest& request) {
  const Key key(EVP_EC_gen("P-256"));
  if (!key) return crypto("make a key");
  TRY_ASSIGN(const Certificate certificate, make_certificate(ca, key.get(), request));
  return KeyPair{pem_of(certificate.get()), pem_of(key.get())};
}

Result<std::string> reissue(const KeyPair& ca, const std::string& certificate_pem,
                            const IssueRequest& request) {
  TRY_ASSIGN(const Certificate old, certificate_from(certificate_pem));
  EVP_PKEY* key = X509_get0_pubkey(old.get());
  if (key == nullptr) return Error{Code::invalid, "The certificate has no key."};
  TRY_ASSIGN(const Certificate certificate, make_certificate(ca, key, request));
  return pem_of(certificate.get());
}

Result<Identity> identity_of(const std::string& certificate_pem) {
  TRY_ASSIGN(const Certificate certificate, certificate_from(certificate_pem));
  const std::string organization = field_of(certificate.get(), NID_organizationName);
  const std::string name = field_of(certificate.get(), NID_commonName);
  if (organization == kHostOrganization) return Identity{Role::host, name};
  if (organization == kAdminOrganization) return Identity{Role::admin, name};
  return Error{Code::denied, "The certificate is neither a host's nor an administrator's."};
}

Result<Identity> verify(const std::string& ca_pem, const std::string& certificate_pem) {
  TRY_ASSIGN(const Certificate ca, certificate_from(ca_pem));
  TRY_ASSIGN(const Certificate certificate, certificate_from(certificate_pem));
  const Trust trust(X509_STORE_new());
  X509_STORE_add_cert(trust.get(), ca.get());
  const TrustContext context(X509_STORE_CTX_new());
  X509_STORE_CTX_init(context.get(), trust.get(), certificate.get(), nullptr);
  if (X509_verify_cert(context.get()) != 1) {
    const int problem = X509_STORE_CTX_get_error(context.get());
    return Error{Code::denied, std::string("The certificate is not accepted: ") +
                                   X509_verify_cert_error_string(problem) + "."};
  }
  return identity_of(certificate_pem);
}

Result<std::string> key_fingerprint(const std::string& certificate_pem) {
  TRY_ASSIGN(const Certificate certificate, certificate_from(certificate_pem));
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  if (X509_pubkey_digest(certificate.get(), EVP_sha256(), digest.data(), &size) != 1)
    return crypto("make a digest");
  std::string text;
  for (unsigned i = 0; i < size; ++i) {
    constexpr char kHex[] = "0123456789abcdef";
    if (i > 0) text += ':';
    text += kHex[digest[i] >> 4U];
    text += kHex[digest[i] & 15U];
  }
  return text;
}

Status save(const Credentials& credentials, const std::string& folder) {
  TRY(process::make_folder(folder));
  TRY(process::replace_file(folder + "/ca.pem", credentials.ca_pem, 0644));
  TRY(process::replace_file(folder + "/cert.pem", credentials.own.certificate_pem, 0644));
  return process::replace_file(folder + "/key.pem", credentials.own.key_pem, 0600);
}

Result<Credentials> load(const std::string& folder) {
  Credentials credentials;
  TRY_ASSIGN(credentials.ca_pem, process::read_small_file(folder + "/ca.pem"));
  TRY_ASSIGN(credentials.own.certificate_pem, process::read_small_file(folder + "/cert.pem"));
  TRY_ASSIGN(credentials.own.key_pem, process::read_small_file(folder + "/key.pem"));
  return credentials;
}

}  // namespace hf::pki
