// Compilation of the table to BPF: the one file that knows libseccomp. Runs once in the launcher at
// start, before privileges are dropped.
#include "sandbox/launcher/seccomp_policy.h"

#include <seccomp.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <string>
#include <string_view>

#include "sandbox/sys/unique_fd.h"

namespace codespace::launcher {
namespace {

struct Release {
  void operator()(void* context) const { seccomp_release(context); }
};
using Context = std::unique_ptr<void, Release>;

Result<Context> new_context(std::uint32_t default_action, Architecture architecture) {
  Context context(seccomp_init(default_action));
  if (!context) return server_error(ErrorCode::internal, "seccomp_init");
  if (architecture != kNative) {
    const std::uint32_t token = architecture == Architecture::aarch64 ? SCMP_ARCH_AARCH64 : SCMP_ARCH_X86_64;
    if (const int rc = seccomp_arch_add(context.get(), token); rc != 0) return sys_error(-rc, "seccomp_arch_add");
    if (const int rc = seccomp_arch_remove(context.get(), SCMP_ARCH_NATIVE); rc != 0) return sys_error(-rc, "seccomp_arch_remove");
  }
  // i386, x32 and friends would re-open what is closed here: a program that uses them dies.
  if (const int rc = seccomp_attr_set(context.get(), SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS); rc != 0)
    return sys_error(-rc, "seccomp bad-arch action");
  // A binary tree over the numbers: a quarter of the instructions run per call.
  if (const int rc = seccomp_attr_set(context.get(), SCMP_FLTATR_CTL_OPTIMIZE, 2); rc != 0)
    return sys_error(-rc, "seccomp optimise");
  return context;
}

Result<void> add_rule(void* context, const SeccompRule& rule) {
  std::array<scmp_arg_cmp, 3> arguments{};
  unsigned count = 0;
  for (const Condition& c : rule.when) {
    if (c.mask == kAll64) arguments[count++] = scmp_arg_cmp{c.argument, SCMP_CMP_EQ, c.value, 0};
    else if (c.mask != 0) arguments[count++] = scmp_arg_cmp{c.argument, SCMP_CMP_MASKED_EQ, c.mask, c.value};
  }
  const std::uint32_t action = rule.error == 0 ? SCMP_ACT_ALLOW : SCMP_ACT_ERRNO(static_cast<std::uint32_t>(rule.error));
  std::string_view left = rule.calls;
  while (!left.empty()) {
    const std::size_t end = std::min(left.find(' '), left.size());
    const std::string name(left.substr(0, end));
    left.remove_prefix(std::min(end + 1, left.size()));
    // libseccomp takes the number of this machine and translates it to the filter's. One that this libseccomp does not know, or an
    // architecture does not have, falls to the default.
    const int number = seccomp_syscall_resolve_name(name.c_str());
    if (number < 0) continue;
    if (const int rc = seccomp_rule_add_array(context, action, number, count, arguments.data()); rc != 0)
      return sys_error(-rc, "seccomp rule " + name + " (" + rule.why + ")");
  }
  return {};
}

Result<std::vector<std::uint8_t>> export_program(void* context) {
  sys::UniqueFd memory(::memfd_create("seccomp", MFD_CLOEXEC));
  if (!memory) return sys_error(errno, "memfd_create seccomp");
  if (const int rc = seccomp_export_bpf(context, memory.get()); rc != 0)
    return sys_error(-rc, "seccomp_export_bpf");
  std::vector<std::uint8_t> program(static_cast<size_t>(::lseek(memory.get(), 0, SEEK_END)));
  if (::pread(memory.get(), program.data(), program.size(), 0) != static_cast<ssize_t>(program.size()))
    return sys_error(errno, "read seccomp program");
  return program;
}

Result<std::vector<std::uint8_t>> compile(Filter filter, std::uint32_t default_action, Architecture architecture) {
  auto context = new_context(default_action, architecture);
  if (!context) return std::unexpected(context.error());
  for (const SeccompRule& rule : seccomp_table()) {
    if (rule.filter != filter) continue;
    if (auto added = add_rule(context->get(), rule); !added) return std::unexpected(added.error());
  }
  return export_program(context->get());
}

}  // namespace

Result<SeccompPrograms> build_seccomp_programs(Architecture architecture) {
  auto a = compile(Filter::a, SCMP_ACT_ERRNO(kUnknownCallError), architecture);
  if (!a) return std::unexpected(a.error());
  auto b = compile(Filter::b, SCMP_ACT_ALLOW, architecture);
  if (!b) return std::unexpected(b.error());
  return SeccompPrograms{std::move(*a), std::move(*b)};
}

}  // namespace codespace::launcher
