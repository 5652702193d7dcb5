// Template roots: for each image one read-only mount tree in the launcher's small root,
// with the image's files, a filled /dev and empty mount points. A session's child binds it
// whole, so what can be done once is done once.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>

#include "sandbox/sys/result.h"

namespace codespace::launcher {

class ImageTemplates {
 public:
  /// Path of the template of an image, made at its first use. The image is the directory
  /// /images/<handle as 16 hex digits>; unknown_image if there is none.
  Result<std::string> get(std::uint64_t handle);

 private:
  std::unordered_map<std::uint64_t, std::string> made_;
};

}  // namespace codespace::launcher
