#define TOML_EXCEPTIONS 0
#define TOML_HEADER_ONLY 1
#include "core/vm/spec_toml.hpp"

#include <toml++/toml.h>
#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>

#include "core/vm/spec_names.hpp"
#include "core/vm/spec_problem.hpp"

namespace hf::vm {
using nlohmann::json;

namespace {

struct Place {
  std::uint32_t line = 1, column = 1;
  auto operator<=>(const Place&) const = default;
};

Place begin_of(const toml::source_region& region) {
  return {std::max<std::uint32_t>(region.begin.line, 1), std::max<std::uint32_t>(region.begin.column, 1)};
}

// A TOML document as the tree that read_spec reads, and where in the file each part of it stands.
class Tree {
 public:
  explicit Tree(const toml::table& document) : root_(convert(document, "")) {}

  const json& root() const { return root_; }

  // The place of `path`, or of the nearest part around it that is in the file.
  Place place_of(std::string path) const {
    while (true) {
      if (auto found = places_.find(path); found != places_.end()) return found->second;
      auto cut = path.find_last_of(".[");
      if (cut == std::string::npos) return {};
      path.resize(cut);
    }
  }

 private:
  // The two sizes have other names in JSON, and a problem's path is made of those.
  static std::string json_name(std::string_view key, const std::string& inside) {
    if (key == "memory" && inside.empty()) return "memory_mib";
    if (key == "size" && inside.starts_with("disks[")) return "size_bytes";
    return std::string(key);
  }

  json convert(const toml::node& node, const std::string& path) {
    if (const auto* table = node.as_table()) return convert_table(*table, path);
    if (const auto* array = node.as_array()) {
      json list = json::array();
      for (std::size_t i = 0; i < array->size(); ++i) {
        std::string inner = path + "[" + std::to_string(i) + "]";
        places_.emplace(inner, begin_of((*array)[i].source()));
        list.push_back(convert((*array)[i], inner));
      }
      return list;
    }
    if (const auto* text = node.as_string()) return text->get();
    if (const auto* number = node.as_integer()) return number->get();
    if (const auto* number = node.as_floating_point()) return number->get();
    if (const auto* flag = node.as_boolean()) return flag->get();
    return json::binary({});
  }

  json convert_table(const toml::table& table, const std::string& path) {
    json object = json::object();
    for (const auto& [key, value] : table) {
      std::string name = json_name(key.str(), path);
      std::string inner = path.empty() ? name : path + "." + name;
      places_.emplace(inner, begin_of(key.source()));
      object[std::string(key.str())] = convert(value, inner);
    }
    return object;
  }

  std::map<std::string, Place> places_;  // before root_, whose making fills it
  json root_;
};

std::string line_of(std::string_view source_name, Place place, std::string_view text) {
  return std::string(source_name) + ":" + std::to_string(place.line) + ":" + std::to_string(place.column) +
         ": " + std::string(text);
}

Error syntax_error(const toml::parse_error& problem, std::string_view source_name) {
  std::string text = "This is not TOML: " + std::string(problem.description()) + ".";
  std::replace_if(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20; }, ' ');
  return Error{Code::invalid, line_of(source_name, begin_of(problem.source()), text)};
}

}  // namespace

Result<VmSpec> parse_spec(std::string_view text, std::string_view source_name) {
  toml::parse_result parsed = toml::parse(text, std::string(source_name));
  if (parsed.failed()) return syntax_error(parsed.error(), source_name);
  Tree tree(parsed.table());
  SpecReading reading = read_spec(tree.root(), Dialect::toml);
  if (reading.problems.empty()) return std::move(reading.spec);
  std::vector<std::pair<Place, std::string>> found;
  for (const Problem& problem : reading.problems)
    found.emplace_back(tree.place_of(problem.path), problem.text);
  std::stable_sort(found.begin(), found.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<std::string> lines;
  for (const auto& [place, problem] : found) lines.push_back(line_of(source_name, place, problem));
  return Error{Code::invalid, joined(lines)};
}

namespace {

// One character of a TOML string. `long_text`: within """, where line breaks and tabs stand for themselves.
void append_escaped(std::string& out, char c, bool long_text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  auto byte = static_cast<unsigned char>(c);
  if (c == '"' || c == '\\') {
    (out += '\\') += c;
  } else if (long_text && (c == '\n' || c == '\t')) {
    out += c;
  } else if (byte < 0x20 || byte == 0x7f) {
    out += "\\u00";
    out += kHex[byte >> 4];
    out += kHex[byte & 15];
  } else {
    out += c;
  }
}

std::string toml_text(std::string_view text) {
  const bool long_text = text.find('\n') != std::string_view::npos;
  std::string out = long_text ? "\"\"\"\n" : "\"";
  for (char c : text) append_escaped(out, c, long_text);
  return out + (long_text ? "\"\"\"" : "\"");
}

std::string size_text(std::uint64_t mib) {
  if (mib != 0 && mib % (1 << 20) == 0) return "\"" + std::to_string(mib >> 20) + " TiB\"";
  if (mib != 0 && mib % (1 << 10) == 0) return "\"" + std::to_string(mib >> 10) + " GiB\"";
  return "\"" + std::to_string(mib) + " MiB\"";
}

class Writer {
 public:
  void raw(std::string_view key, std::string_view value) {
    ((text_ += key) += " = ") += std::string(value) + "\n";
  }
  void text(std::string_view key, std::string_view value) {
    if (!value.empty()) raw(key, toml_text(value));
  }
  void begin(std::string_view header) { (text_ += "\n") += std::string(header) + "\n"; }
  std::string take() { return std::move(text_); }

 private:
  std::string text_;
};

void write_machine(Writer& out, const VmSpec& spec) {
  const VmSpec defaults;
  out.raw("version", std::to_string(VmSpec::kVersion));
  out.text("name", spec.name);
  out.text("description", spec.description);
  out.raw("vcpus", std::to_string(spec.vcpus));
  out.raw("memory", size_text(spec.memory_mib));
  if (spec.firmware != defaults.firmware) out.text("firmware", name_in(kFirmwareNames, spec.firmware));
  out.text("machine", spec.machine);
  out.text("cpu_model", spec.cpu_model);
  out.text("datastore", spec.datastore);
  std::string order;
  for (const std::string& name : spec.boot_order) order += (order.empty() ? "" : ", ") + toml_text(name);
  if (!order.empty()) out.raw("boot_order", "[" + order + "]");
  if (!spec.guest_agent) out.raw("guest_agent", "false");
  if (spec.stop_timeout_seconds != defaults.stop_timeout_seconds) {
    out.raw("stop_timeout_seconds", std::to_string(spec.stop_timeout_seconds));
  }
}

void write_devices(Writer& out, const VmSpec& spec) {
  for (const Disk& disk : spec.disks) {
    out.begin("[[disks]]");
    out.text("name", disk.name);
    out.text("datastore", disk.datastore);
    if (disk.size_bytes != 0) out.raw("size", size_text(disk.size_bytes >> 20));
    if (disk.format != Disk{}.format) out.text("format", name_in(kFormatNames, disk.format));
    out.text("import_from", disk.import_from);
  }
  for (const Cdrom& cdrom : spec.cdroms) {
    out.begin("[[cdroms]]");
    out.text("name", cdrom.name);
    out.text("image", cdrom.image);
  }
  for (const Nic& nic : spec.nics) {
    out.begin("[[nics]]");
    out.text("network", nic.network);
    if (nic.model != Nic{}.model) out.text("model", name_in(kNicModelNames, nic.model));
    out.text("mac", nic.mac);
  }
}

}  // namespace

std::string to_toml(const VmSpec& spec) {
  Writer out;
  write_machine(out, spec);
  write_devices(out, spec);
  if (spec.direct_kernel) {
    out.begin("[direct_kernel]");
    out.text("kernel", spec.direct_kernel->kernel);
    out.text("initrd", spec.direct_kernel->initrd);
    out.text("cmdline", spec.direct_kernel->cmdline);
  }
  if (spec.cloud_init) {
    out.begin("[cloud_init]");
    out.text("user_data", spec.cloud_init->user_data);
    out.text("meta_data", spec.cloud_init->meta_data);
    out.text("network_config", spec.cloud_init->network_config);
  }
  if (spec.ha != HaPolicy{}) {
    out.begin("[ha]");
    out.text("priority", name_in(kPriorityNames, spec.ha.priority));
    out.raw("max_crash_restarts", std::to_string(spec.ha.max_crash_restarts));
  }
  return out.take();
}

}  // namespace hf::vm
