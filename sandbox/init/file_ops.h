// File work for the API. Each request is served by a helper process that init forks: to the
// file system it is the tenant, to signals and tracing it is not, and it has the one
// connection it serves. Whatever a tenant plants (links, FIFOs, endless files, deep trees),
// the helper meets it as the tenant's own programs would, inside the session, and is killed
// at its time limit.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace codespace::init {

/// True for request types that file_ops serves.
bool is_file_request(std::uint32_t type);

/// True for requests that may write file contents.
bool writes_file_data(std::uint32_t type);

/// Longest that one file request may take, in nanoseconds: transfers, and everything else.
std::uint64_t file_time_limit_ns(std::uint32_t type);

/// Whether `name` is of the pattern, in which `*` stands for any bytes and `?` for one; nothing
/// else is special. Time is bounded by the product of the lengths.
bool matches(std::string_view pattern, std::string_view name);

/// The helper's life: becomes the file tenant, does the work, answers on `connection` and
/// exits. `payload` is the request; `early` are bytes of later frames already received.
[[noreturn]] void serve_file_request(int connection, std::uint32_t type, std::string_view payload,
                                     std::string_view early);

}  // namespace codespace::init
