#pragma once
// Where the cluster is and who we are: --host, --context, HOLDFAST_API, ~/.config/holdfast/. Read once at
// start.
#include <string>
#include <vector>

#include "base/result.hpp"
#include "sys/pki/pki.hpp"

namespace hf::cli {

// A context is a folder with ca.pem, cert.pem, key.pem and `endpoints` (an address a line).
struct Context {
  std::vector<std::string> endpoints;
  pki::Credentials credentials;
};

struct ContextOptions {
  std::string host;     // --host: addresses separated by commas; overrides the context's
  std::string context;  // --context: a folder
};

// The folder: --context, else $HOLDFAST_CONTEXT, else "context" in <config>/holdfast/config.json, else
// <config>/holdfast/default, else /etc/holdfast/admin, else that of the lab on this machine. The addresses:
// --host, else $HOLDFAST_API, else the folder's.
Result<Context> load_context(const ContextOptions& options);
Status save_context(const Context& context, const std::string& folder);
// $XDG_CONFIG_HOME or ~/.config, then /holdfast.
std::string user_config_folder();
std::vector<std::string> split_list(const std::string& text);

}  // namespace hf::cli
