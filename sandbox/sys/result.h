// The error type and Result<T> of the whole project: what failed, whose fault it
// was, and which errno said so. Used by all three programs, so it depends on
// nothing but the standard library and allocates only when an error is made.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <utility>

namespace codespace {

/// Everything that can go wrong in operation, as one closed set. The gateway maps
/// each to an HTTP status and a stable public code in server/error_response.cpp.
enum class ErrorCode : std::uint16_t {
  internal,             // a bug, or the machine failed us
  invalid_request,      // malformed or out of range; `what` names the field and the limit
  unauthorized,         // no key, or a wrong one
  forbidden,            // the key may not do this
  not_found,            // route or object does not exist, or belongs to someone else
  method_not_allowed,
  unsupported_media_type,
  payload_too_large,
  conflict,             // the state of the object does not permit this now
  session_not_found,
  session_ended,        // existed; carries the end reason
  session_paused,
  unknown_image,
  unknown_language,
  run_not_found,
  context_not_found,
  file_not_found,
  file_exists,
  not_a_file,           // FIFO, device, socket or directory where a regular file is needed
  not_a_directory,
  is_a_directory,
  permission_denied,    // the tenant's own file modes say no
  no_space,             // the session's file system is full
  file_too_large,
  range_not_satisfiable,
  idempotency_mismatch, // same key, other body
  overloaded,           // a bounded queue is full
  quota_exceeded,
  queue_timeout,        // the deadline passed before the run could start
  kernel_unavailable,   // the interpreter could not be started; not the tenant's program failing
  launcher_unavailable,
  egress_unavailable,   // the proxy that is a session's way out does not answer
  sandbox_failed,       // a session could not be created, fails closed
  deadline_exceeded,    // our own work (file operation, create) hit its time limit
};

/// Who has to act: the caller, or the operator of this server.
enum class Fault : std::uint8_t { client, server };

struct Error {
  ErrorCode code = ErrorCode::internal;
  Fault fault = Fault::server;
  int sys_errno = 0;   // 0 if no system call was involved
  std::string what;    // for our log, or, when fault is client, the sentence for the caller
  std::string pointer = {};  // JSON pointer (RFC 6901) of the field at fault, if one is
};

template <class T>
using Result = std::expected<T, Error>;

/// A failed system call: ours to explain, so Fault::server. `what` is the call and its object.
[[nodiscard]] inline std::unexpected<Error> sys_error(int saved_errno, std::string_view what) {
  return std::unexpected(Error{ErrorCode::internal, Fault::server, saved_errno, std::string(what)});
}

[[nodiscard]] inline std::unexpected<Error> client_error(ErrorCode code, std::string_view what) {
  return std::unexpected(Error{code, Fault::client, 0, std::string(what)});
}

[[nodiscard]] inline std::unexpected<Error> server_error(ErrorCode code, std::string_view what,
                                                         int saved_errno = 0) {
  return std::unexpected(Error{code, Fault::server, saved_errno, std::string(what)});
}

/// Prefixes what a layer knows more than the one below it did: "create session: openat2 rootfs".
[[nodiscard]] inline std::unexpected<Error> with_context(Error error, std::string_view context) {
  error.what.insert(0, std::string(context) + ": ");
  return std::unexpected(std::move(error));
}

}  // namespace codespace
