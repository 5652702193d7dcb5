// Bodies of the REST API. The first byte says of which request.
#include "api/json.h"
#include "tests/fuzz/fuzz.h"

using namespace codespace;
using namespace codespace::fuzz;

namespace {

template <class T>
void check(const Result<T>& decoded) {
  if (decoded) return;
  must_hold(decoded.error().fault == Fault::client, "a body that does not decode is the client's mistake");
  must_hold(!decoded.error().what.empty(), "a mistake has a sentence");
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string body(text(data + 1, size - 1));
  switch (data[0] % 9) {
    case 0: check(api::decode_session(body, std::chrono::seconds(1800), std::chrono::seconds(86'400))); break;
    case 1: check(api::decode_patch(body)); break;
    case 2: check(api::decode_run(body)); break;
    case 3: check(api::decode_command(body)); break;
    case 4: check(api::decode_one_shot(body)); break;
    case 5: check(api::decode_move(body)); break;
    case 6: check(api::decode_mkdir(body)); break;
    case 7: check(api::decode_edit(body)); break;
    default: check(api::decode_search(body)); break;
  }
  return 0;
}
