#pragma once
// TLS 1.3 with both sides' certificates required: how the API and the page streams set OpenSSL up. For .cpp files that
// include OpenSSL's TLS anyway. A context belongs to one thread until its first connection; the rest is stateless.
#include <openssl/ssl.h>

#include <string>

#include "base/result.hpp"
#include "sys/pki/pki.hpp"

namespace hf::tls {

// Own certificate and key, the cluster's CA as the only trust, TLS 1.3, no session resumption (each
// connection shows its certificate anew), and the peer's role checked within the handshake: whoever it does
// not fit sees no byte of what follows. A server accepts hosts and administrators, a client only hosts.
enum class Side { server, client };
Status configure(SSL_CTX* context, const pki::Credentials& credentials, Side side);
// The other side must be this host; empty: no more than its role is asked for. `name` must outlive the context.
void expect_host(SSL_CTX* context, const std::string* name);

// The peer's certificate, PEM; empty if there is none.
std::string peer_certificate(const SSL* connection);
// The alert by which the other side refused the last connection of this thread; empty: none. Read clears it.
std::string take_alert();

// Did this side refuse the other's certificate, or what it said, in the last connection of this thread? Read clears it.
bool take_own_alert();

}  // namespace hf::tls
