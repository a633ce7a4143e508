#include "lab/fault.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "lab/layout.hpp"

namespace hf::lab {
namespace {

Error unknown(const std::string& text) {
  return Error{
      Code::invalid,
      fmt::format("\"{}\" is not a fault. Faults are: power, hang, net, net=mgmt|motion|vm, storage, "
                  "storage=DATASTORE:apd|pdl, link=mgmt|motion|vm:rate=10mbit, process=NAME, "
                  "process=NAME:stop.",
                  text)};
}

bool is_network(const std::string& name) {
  return std::find(kNetworks.begin(), kNetworks.end(), name) != kNetworks.end();
}

// A number with a unit of tc(8): nothing else may reach its command line.
bool is_rate(const std::string& rate) {
  const auto unit = rate.find_first_not_of("0123456789");
  if (unit == 0 || unit == std::string::npos) return false;
  const std::string name = rate.substr(unit);
  return name == "kbit" || name == "mbit" || name == "gbit";
}

}  // namespace

Result<Fault> parse_fault(const std::string& text) {
  const auto equals = text.find('=');
  const std::string word = text.substr(0, equals);
  const std::string rest = equals == std::string::npos ? "" : text.substr(equals + 1);
  const auto colon = rest.find(':');
  Fault fault{.kind = Fault::Kind::power,
              .target = rest.substr(0, colon),
              .mode = colon == std::string::npos ? "" : rest.substr(colon + 1)};
  const bool has_dangling = (equals != std::string::npos && fault.target.empty()) ||
                            (colon != std::string::npos && fault.mode.empty());
  if (has_dangling) return unknown(text);
  const bool is_plain = fault.target.empty();
  if (word == "power" && is_plain) return fault;
  if (word == "hang" && is_plain) {
    fault.kind = Fault::Kind::hang;
  } else if (word == "net" && fault.mode.empty() && (is_plain || is_network(fault.target))) {
    fault.kind = Fault::Kind::net;
  } else if (word == "storage" && (fault.mode.empty() || fault.mode == "apd" || fault.mode == "pdl")) {
    fault.kind = Fault::Kind::storage;
    if (fault.mode.empty()) fault.mode = "apd";
  } else if (word == "link" && is_network(fault.target) && fault.mode.starts_with("rate=") &&
             is_rate(fault.mode.substr(5))) {
    fault.kind = Fault::Kind::link;
    fault.mode = fault.mode.substr(5);
  } else if (word == "process" && !is_plain &&
             (fault.mode.empty() || fault.mode == "kill" || fault.mode == "stop")) {
    fault.kind = Fault::Kind::process;
    if (fault.mode.empty()) fault.mode = "kill";
  } else {
    return unknown(text);
  }
  return fault;
}

}  // namespace hf::lab
