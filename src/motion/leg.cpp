#include "motion/leg.hpp"

#include "sys/process/small_file.hpp"

namespace hf::motion {

Result<engine::ConnectionOptions> connection_options(const Leg& leg) {
  engine::ConnectionOptions options;
  options.motion = leg.motion;
  options.vm = leg.vm;
  options.token = leg.token;
  options.peer = leg.peer;
  options.encryption = leg.encryption;
  if (leg.ca.empty() || leg.encryption == engine::Encryption::off) return options;
  pki::Credentials credentials;
  TRY_ASSIGN(credentials.ca_pem, process::read_small_file(leg.ca));
  TRY_ASSIGN(credentials.own.certificate_pem, process::read_small_file(leg.certificate));
  TRY_ASSIGN(credentials.own.key_pem, process::read_small_file(leg.key));
  options.credentials = std::move(credentials);
  return options;
}

}  // namespace hf::motion
