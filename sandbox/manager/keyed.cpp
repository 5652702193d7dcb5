// SHA-256 over a canonical, length-prefixed form of each request.
#include "sandbox/manager/keyed.h"

#include <openssl/evp.h>

#include <algorithm>

#include "sandbox/sys/assert.h"
#include "sandbox/wire/codec.h"

namespace codespace::manager {
namespace {

Digest sha256(const wire::Writer& writer) {
  Digest digest{};
  unsigned size = 0;
  const int done =
      ::EVP_Digest(writer.data().data(), writer.data().size(), digest.data(), &size, ::EVP_sha256(), nullptr);
  CODESPACE_ASSERT(done == 1 && size == digest.size(), "SHA-256 is always there");
  return digest;
}

void put_env(wire::Writer& writer, Env env) {
  std::ranges::sort(env);
  writer.u32(static_cast<std::uint32_t>(env.size()));
  for (const auto& [name, value] : env) {
    writer.bytes(name);
    writer.bytes(value);
  }
}

}  // namespace

Digest digest_create(const SessionSpec& spec) {
  wire::Writer writer;
  writer.bytes("create 2");
  writer.bytes(spec.image);
  writer.u32(static_cast<std::uint32_t>(spec.labels.size()));
  for (const auto& [name, value] : spec.labels) {
    writer.bytes(name);
    writer.bytes(value);
  }
  put_env(writer, spec.env);
  writer.i64(spec.idle_timeout.count());
  writer.i64(spec.max_lifetime.count());
  writer.u64(spec.limits.memory_bytes);
  writer.u64(spec.limits.workspace_bytes);
  writer.u64(spec.limits.scratch_bytes);
  writer.u64(spec.limits.inodes);
  writer.u32(spec.limits.cpu_milli);
  writer.u32(spec.limits.pids);
  writer.u32(static_cast<std::uint32_t>(spec.flavour));
  writer.u8(spec.network ? 1 : 0);
  if (spec.network) {
    writer.u32(static_cast<std::uint32_t>(spec.network->mode));
    for (const std::string& rule : spec.network->allow) writer.bytes(rule);
  }
  return sha256(writer);
}

Digest digest_run(const std::string& session_id, const RunSpec& spec) {
  wire::Writer writer;
  writer.bytes("run 1");
  writer.bytes(session_id);
  writer.bytes(spec.language);
  writer.bytes(spec.context);
  writer.bytes(spec.code);
  writer.i64(spec.timeout.count());
  return sha256(writer);
}

Digest digest_command(const std::string& session_id, const CommandSpec& spec) {
  wire::Writer writer;
  writer.bytes("command 1");
  writer.bytes(session_id);
  writer.bytes(spec.command);
  writer.bytes(spec.cwd);
  put_env(writer, spec.env);
  writer.bytes(spec.stdin_data);
  writer.i64(spec.timeout.count());
  return sha256(writer);
}

}  // namespace codespace::manager
