#pragma once
// Result<T>: a value or an Error. Every fallible function of the project returns one; nothing throws across a module.
//
// Three kinds of trouble are never mixed:
//   - an operating error (no room, not found, refused)   -> Error with the code a caller can react to
//   - an unknown outcome (request sent, reply lost)      -> Code::outcome_unknown: neither success nor failure
//   - a broken invariant                                 -> ENSURE (ensure.hpp): the process stops
// Only this header names tl::expected, so that std::expected can replace it.
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>

#include "base/ensure.hpp"

namespace hf {

// A code exists only where some caller reacts to it specifically; the rest is said in the text.
enum class Code {
  invalid,          // the request or the input is wrong; nothing was changed
  not_found,        // the named thing does not exist
  exists,           // the name is taken
  conflict,         // somebody else changed it, or another command is under way; try again
  no_room,          // not enough capacity (memory, disk, slots)
  denied,           // the caller may not do this
  unavailable,      // a service (store, host, QEMU) cannot be reached; nothing was done
  timed_out,        // gave up waiting; nothing was done
  outcome_unknown,  // it may or may not have happened: read the state before anything else
  corrupt,          // data failed its checksum or its format
  unsupported,      // this machine, QEMU or guest cannot do it
  failed,           // anything else
};

// What the user's tools see of a code. One table for CLI exit status, HTTP status and text (result.cpp).
struct CodeInfo {
  Code code;
  int exit_status;
  int http_status;
  std::string_view name;  // stable, in JSON
};
const CodeInfo& info(Code code);
// The code with this stable name; Code::failed for an unknown one.
Code code_named(std::string_view name);
// The code for an HTTP status of at least 400; Code::failed for one the table does not have.
Code code_of_http(int status);

struct Error {
  Code code = Code::failed;
  std::string what;  // a sentence with a capital that says what to do, where something can be done
};

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : inner_(std::move(value)) {}                          // NOLINT: implicit on purpose
  Result(Error error) : inner_(tl::unexpected<Error>(std::move(error))) {}  // NOLINT: implicit on purpose

  bool ok() const { return inner_.has_value(); }
  explicit operator bool() const { return ok(); }
  // REQUIRES: ok(); else the process stops.
  T& value() & { return checked(inner_); }
  const T& value() const& { return checked(inner_); }
  T&& value() && { return std::move(checked(inner_)); }
  T* operator->() { return &checked(inner_); }
  const T* operator->() const { return &checked(inner_); }
  T& operator*() & { return checked(inner_); }
  const T& operator*() const& { return checked(inner_); }
  // REQUIRES: !ok(); else the process stops.
  const Error& error() const {
    ENSURE(!ok(), "a result that holds a value has no error");
    return inner_.error();
  }
  Code code() const { return error().code; }

 private:
  template <class Inner>
  static auto& checked(Inner& inner) {
    ENSURE(inner.has_value(), "a result that holds an error has no value");
    return *inner;
  }
  tl::expected<T, Error> inner_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : inner_(tl::unexpected<Error>(std::move(error))) {}  // NOLINT: implicit on purpose

  bool ok() const { return inner_.has_value(); }
  explicit operator bool() const { return ok(); }
  // REQUIRES: !ok(); else the process stops.
  const Error& error() const {
    ENSURE(!ok(), "a success has no error");
    return inner_.error();
  }
  Code code() const { return error().code; }

 private:
  tl::expected<void, Error> inner_;
};

using Status = Result<void>;

// "Cannot X: <cause>" keeps the cause's code.
Error because(std::string_view what, const Error& cause);
// An Error from errno: Code::no_room for ENOSPC, not_found for ENOENT, denied for EACCES and EPERM, else failed.
Error from_errno(std::string_view what, int error_number);

}  // namespace hf

#define HF_CONCAT_(a, b) a##b
#define HF_CONCAT(a, b) HF_CONCAT_(a, b)
// TRY(expression): leave the function with the error, if there is one.
#define TRY(expression)                                                  \
  do {                                                                   \
    if (auto hf_result = (expression); !hf_result.ok()) return hf_result.error(); \
  } while (false)
// TRY_ASSIGN(declaration, expression): the same, and the value goes into the declaration.
#define TRY_ASSIGN(declaration, expression)                              \
  auto HF_CONCAT(hf_result_, __LINE__) = (expression);                   \
  if (!HF_CONCAT(hf_result_, __LINE__).ok()) return HF_CONCAT(hf_result_, __LINE__).error(); \
  declaration = std::move(HF_CONCAT(hf_result_, __LINE__)).value()
