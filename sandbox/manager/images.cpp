// Reads the image store: <store>/<name> is a symlink to a directory named by 16 hex digits,
// which holds image.json. The only file of the manager that knows JSON.
#include "sandbox/manager/images.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

namespace codespace::manager {
namespace {

constexpr std::size_t kMaxImageJson = 256 * 1024;

using nlohmann::json;

std::string text_of(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

std::vector<std::string> texts_of(const json& object, const char* key) {
  std::vector<std::string> texts;
  const auto found = object.find(key);
  if (found == object.end() || !found->is_array()) return texts;
  for (const json& item : *found)
    if (item.is_string()) texts.push_back(item.get<std::string>());
  return texts;
}

std::optional<std::uint64_t> parse_handle(const std::string& directory) {
  std::uint64_t handle = 0;
  const auto [end, error] =
      std::from_chars(directory.data(), directory.data() + directory.size(), handle, 16);
  if (directory.size() != 16 || error != std::errc() || end != directory.data() + directory.size())
    return std::nullopt;
  return handle;
}

}  // namespace

Result<ImageInfo> parse_image(const std::string& text) {
  const json document = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!document.is_object()) return server_error(ErrorCode::internal, "image.json is not a JSON object");
  ImageInfo image;
  image.name = text_of(document, "name");
  image.description = text_of(document, "description");
  image.languages = texts_of(document, "languages");
  image.aliases = texts_of(document, "aliases");
  if (image.name.empty()) return server_error(ErrorCode::internal, "image.json has no `name`");
  if (const auto versions = document.find("versions"); versions != document.end() && versions->is_object()) {
    for (const auto& [program, version] : versions->items())
      if (version.is_string()) image.versions.emplace(program, version.get<std::string>());
  }
  if (const auto is_default = document.find("default");
      is_default != document.end() && is_default->is_boolean())
    image.is_default = is_default->get<bool>();
  return image;
}

ImageCatalog::ImageCatalog(std::string store_dir, std::string default_name)
    : store_dir_(std::move(store_dir)), default_name_(std::move(default_name)) {}

void ImageCatalog::load() {
  namespace fs = std::filesystem;
  std::vector<ImageInfo> images;
  std::vector<std::string> problems;
  std::error_code error;
  for (fs::directory_iterator it(store_dir_, error), end; !error && it != end; it.increment(error)) {
    std::error_code ignored;
    if (!it->is_symlink(ignored)) continue;
    const std::string name = it->path().filename();
    const auto handle = parse_handle(fs::read_symlink(it->path(), ignored).filename());
    if (!handle) continue;
    std::ifstream file(it->path() / "image.json", std::ios::binary);
    std::string text(kMaxImageJson, 0);
    file.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<std::size_t>(file.gcount()));
    auto image = parse_image(text);
    if (!image) {
      problems.push_back("image `" + name + "`: " + image.error().what + "; build it again");
      continue;
    }
    image->name = name;  // the name in the store is the one that the operator gave
    image->handle = *handle;
    images.push_back(std::move(*image));
  }
  std::ranges::sort(images, {}, &ImageInfo::name);

  const auto named_default = [this](const ImageInfo& image) { return image.name == default_name_; };
  auto chosen = std::ranges::find_if(images, named_default);
  if (chosen == images.end()) chosen = std::ranges::find_if(images, &ImageInfo::is_default);
  if (chosen == images.end()) chosen = images.begin();
  for (auto image = images.begin(); image != images.end(); ++image) image->is_default = image == chosen;

  const std::lock_guard lock(mutex_);
  images_ = std::move(images);
  problems_ = std::move(problems);
}

const ImageInfo* ImageCatalog::find_locked(const std::string& name) const {
  for (const ImageInfo& image : images_)
    if (name.empty() ? image.is_default : image.name == name) return &image;
  for (const ImageInfo& image : images_)
    if (std::ranges::find(image.aliases, name) != image.aliases.end()) return &image;
  return nullptr;
}

Result<ImageInfo> ImageCatalog::find(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  if (const ImageInfo* image = find_locked(name)) return *image;
  if (images_.empty())
    return server_error(
        ErrorCode::unknown_image,
        "there is no image on this server yet; the operator builds one with images/host/build.sh");
  std::string known;
  for (const ImageInfo& image : images_) known += (known.empty() ? "" : ", ") + image.name;
  return client_error(ErrorCode::unknown_image, "image `" + name.substr(0, 128) +
                                                    "` is not known here; known: " + known +
                                                    ". GET /v1/images lists them");
}

std::vector<ImageInfo> ImageCatalog::all() const {
  const std::lock_guard lock(mutex_);
  return images_;
}

std::vector<std::string> ImageCatalog::problems() const {
  const std::lock_guard lock(mutex_);
  return problems_;
}

std::vector<std::string> ImageCatalog::languages_of(std::uint64_t handle) const {
  const std::lock_guard lock(mutex_);
  for (const ImageInfo& image : images_)
    if (image.handle == handle) return image.languages;
  return {};
}

}  // namespace codespace::manager
