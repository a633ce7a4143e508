#pragma once
// TLS 1.3 with both sides' certificates required, for server.cpp and client.cpp. No other part sees OpenSSL's
// TLS.
#include <openssl/ssl.h>

#include <string>

#include "base/result.hpp"
#include "sys/pki/pki.hpp"

namespace hf::api::tls {

// Own certificate and key, the cluster's CA as the only trust, TLS 1.3, no session resumption (each
// connection shows its certificate anew), and the peer's role checked within the handshake: whoever it does
// not fit sees no byte of HTTP.
enum class Side { server, client };
Status configure(SSL_CTX* context, const pki::Credentials& credentials, Side side);
// Client only: the host that must answer; empty: any host of the cluster. `name` must outlive the context.
void expect_host(SSL_CTX* context, const std::string* name);

// The peer's certificate, PEM; empty if there is none.
std::string peer_certificate(const SSL* connection);
// The alert by which the other side refused the last connection of this thread; empty: none. Read clears it.
std::string take_alert();

// Client only: does the server at this address refuse the certificate? A request that was sent at once may
// have hidden the alert, so this connects anew, sends nothing and waits up to a second for it. The alert's
// text; empty: it does not.
std::string probe_refusal(SSL_CTX* context, const std::string& address);

}  // namespace hf::api::tls
