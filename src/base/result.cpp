#include "base/result.hpp"

#include <array>
#include <cerrno>
#include <cstring>

namespace hf {
namespace {
constexpr std::array kCodes = {
    CodeInfo{Code::invalid, 2, 400, "invalid"},
    CodeInfo{Code::not_found, 3, 404, "not_found"},
    CodeInfo{Code::exists, 4, 409, "exists"},
    CodeInfo{Code::conflict, 5, 423, "conflict"},
    CodeInfo{Code::no_room, 6, 507, "no_room"},
    CodeInfo{Code::denied, 7, 403, "denied"},
    CodeInfo{Code::unavailable, 8, 503, "unavailable"},
    CodeInfo{Code::timed_out, 9, 504, "timed_out"},
    CodeInfo{Code::outcome_unknown, 10, 502, "outcome_unknown"},
    CodeInfo{Code::corrupt, 11, 500, "corrupt"},
    CodeInfo{Code::unsupported, 12, 501, "unsupported"},
    CodeInfo{Code::failed, 1, 500, "failed"},
};
}  // namespace

const CodeInfo& info(Code code) { return kCodes.at(static_cast<std::size_t>(code)); }

Code code_named(std::string_view name) {
  for (const auto& entry : kCodes) {
    if (entry.name == name) return entry.code;
  }
  return Code::failed;
}

Code code_of_http(int status) {
  for (const auto& entry : kCodes) {
    if (entry.http_status == status && entry.code != Code::corrupt) return entry.code;
  }
  return Code::failed;
}

Error because(std::string_view what, const Error& cause) {
  return Error{cause.code, std::string(what) + ": " + cause.what};
}

Error from_errno(std::string_view what, int error_number) {
  Code code = Code::failed;
  if (error_number == ENOSPC || error_number == EDQUOT) code = Code::no_room;
  if (error_number == ENOENT) code = Code::not_found;
  if (error_number == EACCES || error_number == EPERM) code = Code::denied;
  if (error_number == EEXIST) code = Code::exists;
  return Error{code, std::string(what) + ": " + std::strerror(error_number) + "."};
}

}  // namespace hf
