// From an Error to the answer a client sees: status, stable code, title. One switch each.
#pragma once

#include <string_view>

#include "sandbox/sys/result.h"

namespace codespace::server {

struct PublicError {
  unsigned status;
  std::string_view code;   // part of the API; never renamed
  std::string_view title;
};

PublicError public_error(ErrorCode code);

}  // namespace codespace::server
