// Any bytes as a request: the first line is method and path, the rest the body. Nothing may crash, and every
// answer that is not a stream is JSON.
#include <nlohmann/json.hpp>

#include "api/testing_host.hpp"
#include "base/ensure.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace hf::api;
  static TestingCluster cluster;
  static EchoServices services("host1");
  static Handler handler(cluster.store, services, nullptr, cluster.world("host1"));
  static const bool kReady = [] {
    cluster.run_vm("web", "host2", 512);
    return true;
  }();
  (void)kReady;  // only its making matters
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto line = text.find('\n');
  const auto space = text.find(' ');
  if (line == std::string::npos || space >= line) return 0;
  Request request;
  request.method = text.substr(0, space);
  request.path = text.substr(space + 1, line - space - 1);
  request.body = text.substr(line + 1);
  request.query = {{"limit", request.body.substr(0, 8)}};
  const Response response = handler.handle(request);
  ENSURE(response.stream || nlohmann::json::accept(response.body), "an answer is JSON");
  return 0;
}
