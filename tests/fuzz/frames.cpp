// Frames of an init that was taken over, as the gateway reads them; and those of a kernel that
// lies, as init does. Each input is a list of frames: type, length in two bytes, payload.
#include "sandbox/init/run.h"
#include "sandbox/manager/run_frames.h"
#include "tests/fuzz/fuzz.h"

using namespace codespace;
using namespace codespace::fuzz;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::uint32_t kCap = 4096;
  manager::RunCollector collector(kCap);
  manager::RunRecord record;
  init::RunRequest request;
  request.stream_cap = kCap;
  init::Run run(std::move(request));
  std::string_view rest = text(data, size);
  while (rest.size() >= 3) {
    const auto type = static_cast<std::uint8_t>(rest[0]);
    const std::size_t length = std::min<std::size_t>(static_cast<std::uint8_t>(rest[1]) | static_cast<std::size_t>(static_cast<std::uint8_t>(rest[2])) << 8U, rest.size() - 3);
    const std::string_view payload = rest.substr(3, length);
    rest.remove_prefix(3 + length);
    (void)collector.take({static_cast<wire::InitReply>(type), {payload.data(), payload.size()}}, record);
    (void)manager::decode_refused({payload.data(), payload.size()});
    if (type % 3 == 0) run.add_result(payload);
    if (type % 3 == 1) run.add_error(payload);
    if (type % 3 == 2) run.add_output(1 + type % 2, payload);
  }
  must_hold(record.stdout_data.size() <= kCap && record.stderr_data.size() <= kCap, "a stream stays within its cap");
  must_hold(run.log().size() <= size * 4 + (1U << 16), "the log does not grow beyond what came");
  (void)manager::size_of(record);
  return 0;
}
