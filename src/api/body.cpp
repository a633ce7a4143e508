#include "api/body.hpp"

#include <algorithm>

#include "base/json_nesting.hpp"
#include "core/vm/spec_toml.hpp"

namespace hf::api {
using nlohmann::json;

Body::Body(const std::string& text) {
  if (nests_too_deep(text)) {
    complain("The request body has more than " + std::to_string(kJsonLevelsMax) + " levels.");
    json_ = json::object();
    return;
  }
  json_ = text.empty() ? json::object() : json::parse(text, nullptr, false);
  if (json_.is_object()) return;
  complain(json_.is_discarded() ? "The request body is not valid JSON."
                                : "The request body must be a JSON object.");
  json_ = json::object();
}

void Body::complain(const std::string& mistake) {
  if (mistake_.empty()) mistake_ = mistake;
}

const json* Body::find(const char* name) {
  known_.emplace_back(name);
  const auto found = json_.find(name);
  return found == json_.end() || found->is_null() ? nullptr : &*found;
}

std::string Body::text(const char* name, bool required) {
  const json* value = find(name);
  if (value == nullptr && required) complain(std::string("The field \"") + name + "\" is missing.");
  if (value == nullptr) return "";
  if (value->is_string()) return value->get<std::string>();
  complain(std::string("The field \"") + name + "\" must be a text.");
  return "";
}

std::int64_t Body::number(const char* name, std::int64_t low, std::int64_t high) {
  const json* value = find(name);
  if (value == nullptr) return 0;
  const bool fits = value->is_number_integer() &&
                    (!value->is_number_unsigned() || value->get<std::uint64_t>() <= INT64_MAX);
  const std::int64_t number = fits ? value->get<std::int64_t>() : 0;
  if (fits && number >= low && number <= high) return number;
  complain("The field \"" + std::string(name) + "\" must be a whole number from " + std::to_string(low) +
           " to " + std::to_string(high) + ".");
  return 0;
}

bool Body::flag(const char* name, bool otherwise) {
  const json* value = find(name);
  if (value == nullptr) return otherwise;
  if (value->is_boolean()) return value->get<bool>();
  complain(std::string("The field \"") + name + "\" must be true or false.");
  return otherwise;
}

std::vector<std::string> Body::texts(const char* name) {
  std::vector<std::string> out;
  const json* value = find(name);
  if (value == nullptr) return out;
  const std::string mistake = std::string("The field \"") + name + "\" must be a list of texts.";
  if (!value->is_array()) complain(mistake);
  for (const auto& item : value->is_array() ? *value : json::array()) {
    if (item.is_string())
      out.push_back(item.get<std::string>());
    else
      complain(mistake);
  }
  return out;
}

std::map<std::string, std::string> Body::text_map(const char* name) {
  std::map<std::string, std::string> out;
  const json* value = find(name);
  if (value == nullptr) return out;
  const std::string mistake = std::string("The field \"") + name + "\" must be an object of texts.";
  if (!value->is_object()) {
    complain(mistake);
    return out;
  }
  for (const auto& [key, item] : value->items()) {
    if (item.is_string())
      out[key] = item.get<std::string>();
    else
      complain(mistake);
  }
  return out;
}

Result<vm::VmSpec> Body::spec() {
  const std::string toml = text("toml", false);
  std::string source = text("source", false);
  const json* spec = find("spec");
  if (!mistake_.empty()) return Error{Code::invalid, mistake_};
  if (toml.empty() == (spec == nullptr)) {
    return Error{Code::invalid, "The request needs either \"toml\" (the text of a spec file) or \"spec\"."};
  }
  if (source.empty()) source = "the spec";
  if (spec != nullptr && !spec->is_object())
    return Error{Code::invalid, "The field \"spec\" must be an object."};
  if (spec != nullptr) return vm::spec_from_json(spec->dump(-1, ' ', false, json::error_handler_t::replace));
  return vm::parse_spec(toml, source);
}

Status Body::finish() {
  for (const auto& [name, value] : json_.items()) {
    if (std::find(known_.begin(), known_.end(), name) == known_.end()) {
      complain("The field \"" + name + "\" is not known here.");
    }
  }
  if (mistake_.empty()) return {};
  return Error{Code::invalid, mistake_};
}

}  // namespace hf::api
