// Any bytes as requests, an empty line between them: the first line of each is method and path, the rest the body.
// Nothing may crash, and every answer that is not a stream is JSON. Each input meets a fresh cluster, so that a
// finding is found again from its file alone.
#include <nlohmann/json.hpp>

#include "api/testing_host.hpp"
#include "base/ensure.hpp"

namespace hf::api {
namespace {

void handle_one(Handler& handler, const std::string& text) {
  const auto line = text.find('\n');
  const auto space = text.find(' ');
  if (line == std::string::npos || space >= line) return;
  Request request;
  request.method = text.substr(0, space);
  request.path = text.substr(space + 1, line - space - 1);
  request.body = text.substr(line + 1);
  request.query = {{"limit", request.body.substr(0, 8)}};
  const Response response = handler.handle(request);
  ENSURE(response.stream || nlohmann::json::accept(response.body), "an answer is JSON");
}

}  // namespace
}  // namespace hf::api

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace hf::api;
  TestingCluster cluster;
  cluster.run_vm("web", "host2", 512);
  EchoServices services("host1");
  Handler handler(cluster.store, services, nullptr, cluster.world("host1"));
  std::string text(reinterpret_cast<const char*>(data), size);
  for (auto end = text.find("\n\n"); end != std::string::npos; end = text.find("\n\n")) {
    handle_one(handler, text.substr(0, end + 1));
    text.erase(0, end + 2);
  }
  handle_one(handler, text);
  return 0;
}
