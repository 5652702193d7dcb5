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
  /// Makes the template of an image at its first use. The image is the directory
  /// /images/<handle as 16 hex digits>; unknown_image if there is none.
  Result<void> ensure(std::uint64_t handle);
  /// Grows with every template made. A child cloned earlier has a copy of the mounts of then,
  /// so it can serve only templates made before it.
  [[nodiscard]] std::uint64_t generation() const { return made_.size(); }
  /// The generation at which a template was made; 0 if there is none.
  [[nodiscard]] std::uint64_t made_at(std::uint64_t handle) const;

 private:
  std::unordered_map<std::uint64_t, std::uint64_t> made_;
};

/// Path of an image's template in the launcher's small root.
std::string template_path(std::uint64_t handle);

}  // namespace codespace::launcher
