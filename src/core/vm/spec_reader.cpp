#include <algorithm>
#include <cctype>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <span>
#include <utility>

#include "core/vm/spec_names.hpp"
#include "core/vm/spec_problem.hpp"

namespace hf::vm {
using nlohmann::json;

namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      std::size_t changed = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = std::exchange(row[j], std::min({row[j] + 1, row[j - 1] + 1, changed}));
    }
  }
  return row[b.size()];
}

// The known key the user most likely meant; empty if none is near.
std::string nearest(std::string_view key, const std::vector<std::string>& known) {
  if (key.size() > 64) return "";
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(2, key.size() / 3) + 1;
  for (const std::string& candidate : known) {
    bool begins = key.size() >= 3 && (candidate.starts_with(key) || key.starts_with(candidate));
    std::size_t distance = begins ? 1 : edit_distance(key, candidate);
    if (distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

std::string_view kind_of(const json& value) {
  if (value.is_string()) return "a string";
  if (value.is_boolean()) return "true or false";
  if (value.is_number_integer()) return "a whole number";
  if (value.is_number()) return "a number with a fraction";
  if (value.is_array()) return "a list";
  if (value.is_object()) return "a table";
  return "a date or time";  // the TOML reader's stand-in for what a spec never holds
}

// "10 GiB" to MiB. Empty text: good.
std::string read_size(const std::string& text, std::uint64_t& mib) {
  constexpr std::string_view kHow =
      "Write a whole number and MiB, GiB or TiB, such as \"512 MiB\" or \"10 GiB\".";
  std::size_t digits = 0;
  while (digits < text.size() && std::isdigit(static_cast<unsigned char>(text[digits])) != 0) ++digits;
  std::string_view unit = std::string_view(text).substr(digits);
  if (!unit.empty() && unit[0] == ' ') unit.remove_prefix(1);
  if (digits == 0) return "\"" + text + "\" is no size. " + std::string(kHow);
  if (unit.empty()) return "The size \"" + text + "\" lacks its unit. " + std::string(kHow);
  unsigned shift = 0;
  if (unit == "GiB")
    shift = 10;
  else if (unit == "TiB")
    shift = 20;
  else if (unit != "MiB")
    return "\"" + std::string(unit) +
           "\" is no unit that is accepted, because MB, M and G are read as "
           "powers of 1000 by some and of 1024 by others. " +
           std::string(kHow);
  if (digits > 9) return "The size is far too large. " + std::string(kHow);
  mib = std::stoull(text.substr(0, digits)) << shift;
  return "";
}

// Reads the members of one table, notes what is wrong, and at the end complains of keys that nobody asked
// for.
class TableReader {
 public:
  // lenient: keys that nobody asks for are passed over.
  TableReader(const json& table, std::string path, Dialect dialect, bool lenient,
              std::vector<Problem>& problems)
      : table_(table), path_(std::move(path)), dialect_(dialect), lenient_(lenient), problems_(problems) {}

  void text(const char* key, std::string& out) {
    const json* value = find(key);
    if (value == nullptr) return;
    if (value->is_string())
      out = value->get<std::string>();
    else
      wrong_kind(key, *value, "a string");
  }

  void flag(const char* key, bool& out) {
    const json* value = find(key);
    if (value == nullptr) return;
    if (value->is_boolean())
      out = value->get<bool>();
    else
      wrong_kind(key, *value, "true or false");
  }

  // A number that does not fit becomes the nearest that does; the check of the whole spec then refuses it.
  template <class Number>
  void number(const char* key, Number& out) {
    const json* value = find(key);
    if (value == nullptr) return;
    if (!value->is_number_integer()) return wrong_kind(key, *value, "a whole number");
    using Limits = std::numeric_limits<Number>;
    if (value->is_number_unsigned()) {
      auto wide = value->get<std::uint64_t>();
      out = wide > static_cast<std::uint64_t>(Limits::max()) ? Limits::max() : static_cast<Number>(wide);
      return;
    }
    auto wide = value->get<std::int64_t>();
    if (wide >= 0)
      out = std::in_range<Number>(wide) ? static_cast<Number>(wide) : Limits::max();
    else if (std::is_unsigned_v<Number>)
      say(key, "The number must not be negative.");
    else
      out = std::in_range<Number>(wide) ? static_cast<Number>(wide) : Limits::min();
  }

  // unit_bytes: what the JSON number counts.
  void size(const char* toml_key, const char* json_key, std::uint64_t unit_bytes, std::uint64_t& out) {
    if (dialect_ == Dialect::json) return number(json_key, out);
    const json* value = find(toml_key);
    if (value == nullptr) return;
    if (!value->is_string()) return say(json_key, "A size is a string with its unit, such as \"10 GiB\".");
    std::uint64_t mib = 0;
    std::string wrong = read_size(value->get<std::string>(), mib);
    if (!wrong.empty()) return say(json_key, wrong);
    if (mib == 0) return say(json_key, "The size must not be zero.");
    if (mib >= std::uint64_t{1} << 40) return say(json_key, "The size is far too large.");
    out = mib * (kMiB / unit_bytes);
  }

  template <class Enum, std::size_t N>
  void choice(const char* key, Enum& out, const Names<Enum, N>& names) {
    const json* value = find(key);
    if (value == nullptr) return;
    if (!value->is_string()) return wrong_kind(key, *value, "a string");
    const auto& text = value->get_ref<const std::string&>();
    std::string allowed;
    for (const auto& [candidate, name] : names) {
      if (name == text) {
        out = candidate;
        return;
      }
      allowed += (allowed.empty() ? "\"" : ", \"") + std::string(name) + "\"";
    }
    say(key, "\"" + text + "\" is not one of " + allowed + ".");
  }

  void texts(const char* key, std::vector<std::string>& out) {
    const json* value = find(key);
    if (value == nullptr) return;
    if (!value->is_array()) return wrong_kind(key, *value, "a list of strings");
    for (std::size_t i = 0; i < value->size(); ++i) {
      const json& item = (*value)[i];
      if (item.is_string())
        out.push_back(item.get<std::string>());
      else
        say(std::string(key) + "[" + std::to_string(i) + "]", wanted("a string", item));
    }
  }

  // Calls read(reader) for the table of this key, if there is one.
  template <class Read>
  void table(const char* key, Read read) {
    const json* value = find(key);
    if (value == nullptr) return;
    if (!value->is_object()) return wrong_kind(key, *value, "a table");
    TableReader reader(*value, at(key), dialect_, lenient_, problems_);
    read(reader);
    reader.finish();
  }

  // Calls read(reader) for each table of the list of this key.
  template <class Read>
  void tables(const char* key, Read read) {
    const json* value = find(key);
    if (value == nullptr) return;
    if (!value->is_array()) {
      return say(key, wanted("a list of tables, each begun by [[" + std::string(key) + "]]", *value));
    }
    for (std::size_t i = 0; i < value->size(); ++i) {
      std::string path = at(key) + "[" + std::to_string(i) + "]";
      const json& item = (*value)[i];
      static const json kNothing = json::object();
      if (!item.is_object()) problems_.push_back({path, wanted("a table", item)});
      TableReader reader(item.is_object() ? item : kNothing, path, dialect_, lenient_, problems_);
      read(reader);
      reader.finish();
    }
  }

  void say(const std::string& key, std::string text) { problems_.push_back({at(key), std::move(text)}); }
  Dialect dialect() const { return dialect_; }

  // The value of this key, if it is there; asking makes the key a known one.
  const json* find(const char* key) {
    known_.emplace_back(key);
    auto found = table_.find(key);
    return found == table_.end() || found->is_null() ? nullptr : &*found;
  }

  void finish() {
    if (lenient_) return;
    for (const auto& [key, value] : table_.items()) {
      if (std::find(known_.begin(), known_.end(), key) != known_.end()) continue;
      std::string meant = nearest(key, known_);
      std::string all;
      for (const std::string& name : known_) all += (all.empty() ? "" : ", ") + name;
      say(key, meant.empty() ? "The key \"" + key + "\" is not known here. Known are: " + all + "."
                             : "The key \"" + key + "\" is not known here. Did you mean \"" + meant + "\"?");
    }
  }

 private:
  std::string at(const std::string& key) const { return path_.empty() ? key : path_ + "." + key; }
  static std::string wanted(std::string_view what, const json& value) {
    return "This must be " + std::string(what) + ", not " + std::string(kind_of(value)) + ".";
  }
  void wrong_kind(const char* key, const json& value, std::string_view what) {
    say(key, wanted(what, value));
  }

  const json& table_;
  std::string path_;
  Dialect dialect_;
  bool lenient_;
  std::vector<Problem>& problems_;
  std::vector<std::string> known_;
};

void read_version(TableReader& top, Dialect dialect, bool later) {
  std::int64_t version = 0;
  if (top.find("version") == nullptr) {
    if (dialect == Dialect::toml)
      top.say("version", "The file must say which version of this format it has. Add: version = 1");
    return;
  }
  top.number("version", version);
  if (version != VmSpec::kVersion && !later) top.say("version", "Only version 1 of this format is known.");
}

// The store may hold a spec that a later release wrote: what this one does not know of it is passed over.
bool is_of_later_version(const json& tree, Dialect dialect) {
  auto version = tree.find("version");
  return dialect == Dialect::json && version != tree.end() && version->is_number_unsigned() &&
         version->get<std::uint64_t>() > VmSpec::kVersion;
}

void read_disk(TableReader& table, Disk& disk) {
  table.text("name", disk.name);
  table.text("datastore", disk.datastore);
  table.size("size", "size_bytes", 1, disk.size_bytes);
  table.choice("format", disk.format, kFormatNames);
  table.text("import_from", disk.import_from);
  if (table.dialect() == Dialect::json) table.text("tag", disk.tag);
}

void read_nic(TableReader& table, Nic& nic) {
  table.text("network", nic.network);
  table.choice("model", nic.model, kNicModelNames);
  table.text("mac", nic.mac);
  std::transform(nic.mac.begin(), nic.mac.end(), nic.mac.begin(),
                 [](char c) { return static_cast<char>(std::tolower(static_cast<unsigned char>(c))); });
}

void read_top(TableReader& top, VmSpec& spec) {
  top.text("name", spec.name);
  top.text("description", spec.description);
  top.number("vcpus", spec.vcpus);
  top.size("memory", "memory_mib", kMiB, spec.memory_mib);
  top.choice("firmware", spec.firmware, kFirmwareNames);
  top.text("machine", spec.machine);
  top.text("cpu_model", spec.cpu_model);
  top.text("datastore", spec.datastore);
  if (top.dialect() == Dialect::json) top.text("home_tag", spec.home_tag);
  top.tables("disks", [&](TableReader& table) { read_disk(table, spec.disks.emplace_back()); });
  top.tables("cdroms", [&](TableReader& table) {
    Cdrom& cdrom = spec.cdroms.emplace_back();
    table.text("name", cdrom.name);
    table.text("image", cdrom.image);
  });
  top.tables("nics", [&](TableReader& table) { read_nic(table, spec.nics.emplace_back()); });
  top.texts("boot_order", spec.boot_order);
  top.table("direct_kernel", [&](TableReader& table) {
    DirectKernel& direct = spec.direct_kernel.emplace();
    table.text("kernel", direct.kernel);
    table.text("initrd", direct.initrd);
    table.text("cmdline", direct.cmdline);
  });
  top.table("cloud_init", [&](TableReader& table) {
    CloudInit& seed = spec.cloud_init.emplace();
    table.text("user_data", seed.user_data);
    table.text("meta_data", seed.meta_data);
    table.text("network_config", seed.network_config);
  });
  top.flag("guest_agent", spec.guest_agent);
  top.number("stop_timeout_seconds", spec.stop_timeout_seconds);
  top.table("ha", [&](TableReader& table) {
    table.choice("priority", spec.ha.priority, kPriorityNames);
    table.number("max_crash_restarts", spec.ha.max_crash_restarts);
  });
}

bool is_within(std::string_view path, std::string_view outer) {
  return path.starts_with(outer) &&
         (path.size() == outer.size() || path[outer.size()] == '.' || path[outer.size()] == '[');
}

// A mistake that only follows from one already reported says nothing new.
bool follows(const Problem& problem, const std::vector<Problem>& reported) {
  return std::any_of(reported.begin(), reported.end(), [&](const Problem& first) {
    if (is_within(problem.path, first.path)) return true;
    bool names_devices = is_within(problem.path, "boot_order");
    return names_devices && (is_within(first.path, "disks") || is_within(first.path, "cdroms"));
  });
}

}  // namespace

SpecReading read_spec(const json& tree, Dialect dialect) {
  SpecReading reading;
  if (!tree.is_object()) {
    reading.problems.push_back({"", "The VM spec must be a table of keys and values."});
    return reading;
  }
  const bool later = is_of_later_version(tree, dialect);
  TableReader top(tree, "", dialect, later, reading.problems);
  read_version(top, dialect, later);
  read_top(top, reading.spec);
  top.finish();
  const std::vector<Problem> reported = reading.problems;
  for (Problem& problem : check_spec(reading.spec)) {
    if (!follows(problem, reported)) reading.problems.push_back(std::move(problem));
  }
  return reading;
}

Result<std::uint64_t> parse_mib(const std::string& text) {
  std::uint64_t mib = 0;
  const std::string problem = read_size(text, mib);
  if (!problem.empty()) return Error{Code::invalid, problem};
  return mib;
}

}  // namespace hf::vm
