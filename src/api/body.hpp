#pragma once
// Reads the fields of a JSON request body; the first mistake is kept as a sentence. Used by handler.cpp only.
// Not thread-safe; lives within one request.
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "core/vm/spec.hpp"

namespace hf::api {

class Body {
 public:
  // An empty text is an empty object.
  explicit Body(const std::string& text);
  std::string text(const char* name, bool required);
  std::int64_t number(const char* name, std::int64_t low, std::int64_t high);
  bool flag(const char* name, bool otherwise);
  std::vector<std::string> texts(const char* name);
  std::map<std::string, std::string> text_map(const char* name);
  // "spec" (JSON), or "toml" with "source".
  Result<vm::VmSpec> spec();
  // The first mistake, or a field nobody asked for.
  Status finish();

 private:
  const nlohmann::json* find(const char* name);
  void complain(const std::string& mistake);
  nlohmann::json json_;
  std::vector<std::string> known_;
  std::string mistake_;
};

}  // namespace hf::api
