// The images this machine has: names, aliases, handles, and what image.json says of each.
// The image store belongs to the operator and is trusted, but a damaged entry must not take
// the rest down: it is left out and named in problems(). Any thread.
#pragma once

#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "sandbox/manager/records.h"
#include "sandbox/sys/result.h"

namespace codespace::manager {

class ImageCatalog {
 public:
  ImageCatalog(std::string store_dir, std::string default_name);

  /// Reads the store anew. Blocks on the file system.
  void load();
  /// By name, or by alias where no image has that name; empty means the default.
  [[nodiscard]] Result<ImageInfo> find(const std::string& name) const;
  [[nodiscard]] std::vector<ImageInfo> all() const;
  /// Sentences about entries that could not be read.
  [[nodiscard]] std::vector<std::string> problems() const;
  /// What a session of this image can run; empty if the image has been replaced since.
  [[nodiscard]] std::vector<std::string> languages_of(std::uint64_t handle) const;

 private:
  [[nodiscard]] const ImageInfo* find_locked(const std::string& name) const;

  const std::string store_dir_;
  const std::string default_name_;
  mutable std::mutex mutex_;
  std::vector<ImageInfo> images_;  // sorted by name
  std::vector<std::string> problems_;
};

/// Parses one image.json; the handle is the caller's to fill in.
Result<ImageInfo> parse_image(const std::string& text);

}  // namespace codespace::manager
