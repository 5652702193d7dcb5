#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>

#include "sandbox/manager/images.h"
#include "tests/unit/manager/fakes.h"

using namespace codespace;
using namespace codespace::manager;
namespace fs = std::filesystem;

namespace {

void add_image(const std::string& store, const std::string& name, const std::string& handle,
               const std::string& json) {
  fs::create_directories(store + "/" + handle);
  std::ofstream(store + "/" + handle + "/image.json") << json;
  fs::create_symlink(handle, store + "/" + name);
}

}  // namespace

TEST_CASE("an image is found by name, by alias, and as the default", "[manager]") {
  const test::TempDir dir;
  add_image(dir.path(), "host", "0000000000000001",
            R"({"name":"host","languages":["python"],"default":true})");
  ImageCatalog catalog(dir.path(), "code_latest");
  catalog.load();
  REQUIRE(catalog.find(""));
  CHECK(catalog.find("")->name == "host");

  add_image(dir.path(), "code_latest", "00000000deadbeef",
            R"({"name":"code_latest","description":"d","languages":["python","javascript"],
                "versions":{"python":"3.11.2","node":"18.20.4"},"aliases":["linux_latest"]})");
  CHECK_FALSE(catalog.find("code_latest"));
  catalog.load();
  const auto image = catalog.find("linux_latest");
  REQUIRE(image);
  CHECK(image->name == "code_latest");
  CHECK(image->handle == 0xdeadbeef);
  CHECK(image->versions.at("node") == "18.20.4");
  CHECK(image->is_default);
  CHECK(catalog.find("")->name == "code_latest");
  CHECK(catalog.languages_of(0xdeadbeef).size() == 2);
  CHECK(catalog.languages_of(5).empty());
  CHECK(catalog.all().size() == 2);
}

TEST_CASE("an unknown image gives the known ones", "[manager]") {
  const test::TempDir dir;
  ImageCatalog catalog(dir.path(), "code_latest");
  catalog.load();
  CHECK(catalog.find("x").error().fault == Fault::server);
  add_image(dir.path(), "b", "0000000000000001", R"({"name":"b"})");
  add_image(dir.path(), "a", "0000000000000002", R"({"name":"a"})");
  catalog.load();
  const Error error = catalog.find("x").error();
  CHECK(error.code == ErrorCode::unknown_image);
  CHECK(error.fault == Fault::client);
  CHECK(error.what == "image `x` is not known here; known: a, b. GET /v1/images lists them");
}

TEST_CASE("a damaged image is named and leaves the others usable", "[manager]") {
  const test::TempDir dir;
  add_image(dir.path(), "good", "0000000000000001", R"({"name":"good"})");
  add_image(dir.path(), "bad", "0000000000000002", "{ not json");
  add_image(dir.path(), "worse", "0000000000000003", "[]");
  fs::create_symlink("elsewhere", dir.path() + "/stray");
  ImageCatalog catalog(dir.path(), "");
  catalog.load();
  CHECK(catalog.all().size() == 1);
  CHECK(catalog.problems().size() == 2);
  CHECK(parse_image("{}").error().what.find("name") != std::string::npos);
}
