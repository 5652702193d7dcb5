// Forms of the SDKs' RPC, and the JSON of tool arguments within them.
#include "api/rpc_form.h"
#include "api/tool_args.h"
#include "tests/fuzz/fuzz.h"

using namespace codespace;
using namespace codespace::fuzz;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view all = text(data, size);
  const std::size_t cut = all.find('\n');
  api::RpcParameters parameters;
  (void)parameters.add(all.substr(0, cut));
  if (cut != std::string_view::npos) (void)parameters.add(all.substr(cut + 1));
  (void)parameters.flag("AutoGenSession");
  (void)parameters.number("PageSize");
  must_hold(parameters.key().size() <= size, "a key is part of what was sent");
  for (const std::string& json : {parameters.text("Args"), std::string(all)}) {
    auto args = api::ToolArgs::parse(json);
    if (!args) continue;
    (void)args->required("code");
    (void)args->text("language");
    const std::int64_t timeout = args->integer("timeout_s", -1, 1, 60);
    must_hold(timeout == -1 || (timeout >= 1 && timeout <= 60), "a whole number is within what was asked for");
    (void)args->flag("recursive");
    (void)args->list("paths");
    (void)args->env("envs");
    (void)args->edits("edits");
    (void)args->object("nested");
  }
  return 0;
}
