// See error_response.h.
#include "server/error_response.h"

namespace codespace::server {

PublicError public_error(ErrorCode code) {
  switch (code) {
    case ErrorCode::internal: return {500, "internal", "The server failed"};
    case ErrorCode::invalid_request: return {400, "invalid_request", "The request is not valid"};
    case ErrorCode::unauthorized: return {401, "unauthorized", "An API key is needed"};
    case ErrorCode::forbidden: return {403, "forbidden", "This key may not do that"};
    case ErrorCode::not_found: return {404, "not_found", "There is nothing at this address"};
    case ErrorCode::method_not_allowed: return {405, "method_not_allowed", "This address does not take that method"};
    case ErrorCode::unsupported_media_type: return {415, "unsupported_media_type", "The content type is not supported"};
    case ErrorCode::payload_too_large: return {413, "payload_too_large", "The body is too large"};
    case ErrorCode::conflict: return {409, "conflict", "The state does not permit this now"};
    case ErrorCode::session_not_found: return {404, "session_not_found", "There is no such session"};
    case ErrorCode::session_ended: return {410, "session_ended", "The session has ended"};
    case ErrorCode::session_paused: return {409, "session_paused", "The session is paused"};
    case ErrorCode::unknown_image: return {400, "unknown_image", "The image is not known"};
    case ErrorCode::unknown_language: return {400, "unknown_language", "The language is not known"};
    case ErrorCode::run_not_found: return {404, "run_not_found", "There is no such run"};
    case ErrorCode::context_not_found: return {404, "context_not_found", "There is no such context"};
    case ErrorCode::file_not_found: return {404, "file_not_found", "There is no such file"};
    case ErrorCode::file_exists: return {409, "file_exists", "The file exists"};
    case ErrorCode::not_a_file: return {409, "not_a_file", "Not a regular file"};
    case ErrorCode::not_a_directory: return {409, "not_a_directory", "Not a directory"};
    case ErrorCode::is_a_directory: return {409, "is_a_directory", "This is a directory"};
    case ErrorCode::permission_denied: return {403, "permission_denied", "The session's user may not do that"};
    case ErrorCode::no_space: return {507, "no_space", "The session's file system is full"};
    case ErrorCode::file_too_large: return {413, "file_too_large", "The file is too large"};
    case ErrorCode::range_not_satisfiable: return {416, "range_not_satisfiable", "The range lies outside the file"};
    case ErrorCode::idempotency_mismatch: return {422, "idempotency_mismatch", "The idempotency key was used for another request"};
    case ErrorCode::overloaded: return {503, "overloaded", "A queue is full"};
    case ErrorCode::quota_exceeded: return {429, "quota_exceeded", "A quota is used up"};
    case ErrorCode::queue_timeout: return {503, "queue_timeout", "The deadline passed in the queue"};
    case ErrorCode::kernel_unavailable: return {500, "kernel_unavailable", "The interpreter could not be started"};
    case ErrorCode::egress_unavailable: return {503, "egress_unavailable", "The egress proxy does not answer"};
    case ErrorCode::launcher_unavailable: return {503, "launcher_unavailable", "The launcher does not answer"};
    case ErrorCode::sandbox_failed: return {500, "sandbox_failed", "The sandbox failed"};
    case ErrorCode::deadline_exceeded: return {504, "deadline_exceeded", "The operation took too long"};
  }
  return {500, "internal", "The server failed"};
}

}  // namespace codespace::server
