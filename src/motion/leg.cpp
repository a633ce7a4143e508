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
  options.pages = leg.engine == Engine::holdfast;
  if (leg.ca.empty() || leg.encryption == engine::Encryption::off) return options;
  pki::Credentials credentials;
  TRY_ASSIGN(credentials.ca_pem, process::read_small_file(leg.ca));
  TRY_ASSIGN(credentials.own.certificate_pem, process::read_small_file(leg.certificate));
  TRY_ASSIGN(credentials.own.key_pem, process::read_small_file(leg.key));
  options.credentials = std::move(credentials);
  return options;
}

Error reason_of(const engine::Failure& first, const Error& noticed) {
  const Status heard = first.status();
  if (heard.ok()) return noticed;
  const bool words = heard.code() == Code::unavailable && noticed.code == Code::failed;
  return words ? noticed : heard.error();
}

Result<qemu::LaunchRecord> launch_record(const qemu::RunDir& dir) {
  TRY_ASSIGN(const std::string text, process::read_small_file(dir.launch_record()));
  return qemu::decode_launch_record(text);
}

bool is_emulated(const qemu::LaunchRecord& record) { return record.accelerator != "kvm"; }

}  // namespace hf::motion
