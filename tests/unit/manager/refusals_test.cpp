#include <errno.h>

#include <catch2/catch.hpp>

#include "sandbox/manager/refusals.h"

using namespace codespace;
using namespace codespace::manager;
using wire::Refusal;

namespace {

Error explain(Refusal why, int sys_errno = 0, wire::Stage stage = wire::Stage::none) {
  Asked asked;
  asked.path = "a.txt";
  asked.language = "cobol";
  asked.languages = {"python"};
  asked.cwd = "/nowhere";
  asked.size_limit = 77;
  return explain_refusal({why, sys_errno, stage, "detail"}, asked);
}

}  // namespace

TEST_CASE("every refusal of init has its code and its fault", "[manager]") {
  CHECK(explain(Refusal::bad_request).code == ErrorCode::internal);
  CHECK(explain(Refusal::run_not_found).code == ErrorCode::run_not_found);
  CHECK(explain(Refusal::unknown_language).code == ErrorCode::unknown_language);
  CHECK(explain(Refusal::unknown_language).what.find("cobol") != std::string::npos);
  CHECK(explain(Refusal::unknown_language).what.find("it has: python") != std::string::npos);
  CHECK(explain(Refusal::overloaded).code == ErrorCode::overloaded);
  CHECK(explain(Refusal::queue_timeout).code == ErrorCode::queue_timeout);
  CHECK(explain(Refusal::kernel_failed, ENOENT, wire::Stage::spawn_exec).code ==
        ErrorCode::kernel_unavailable);
  CHECK(explain(Refusal::kernel_failed, EAGAIN, wire::Stage::spawn_fork).code == ErrorCode::overloaded);
  CHECK(explain(Refusal::spawn_failed, ENOENT, wire::Stage::spawn_cwd).code == ErrorCode::file_not_found);
  CHECK(explain(Refusal::spawn_failed, ENOENT, wire::Stage::spawn_cwd).what.find("/nowhere") !=
        std::string::npos);
  CHECK(explain(Refusal::spawn_failed, EPERM, wire::Stage::spawn_identity).fault == Fault::server);
  CHECK(explain(Refusal::not_regular).code == ErrorCode::not_a_file);
  CHECK(explain(Refusal::is_directory).code == ErrorCode::is_a_directory);
  CHECK(explain(Refusal::too_large).what.find("77") != std::string::npos);
  CHECK(explain(Refusal::invalid_path).code == ErrorCode::invalid_request);
  CHECK(explain(Refusal::deadline).code == ErrorCode::deadline_exceeded);
  CHECK(explain(static_cast<Refusal>(999)).code == ErrorCode::internal);
}

TEST_CASE("the errno of a tenant's file system becomes the tenant's error", "[manager]") {
  const auto code = [](int e) { return explain(Refusal::file_error, e).code; };
  CHECK(code(ENOENT) == ErrorCode::file_not_found);
  CHECK(code(EACCES) == ErrorCode::permission_denied);
  CHECK(code(EROFS) == ErrorCode::permission_denied);
  for (const int e : {ENOSPC, EDQUOT, ENOMEM}) CHECK(code(e) == ErrorCode::no_space);
  CHECK(code(ENOTDIR) == ErrorCode::not_a_directory);
  CHECK(code(EISDIR) == ErrorCode::is_a_directory);
  CHECK(code(EEXIST) == ErrorCode::file_exists);
  CHECK(code(ENOTEMPTY) == ErrorCode::conflict);
  CHECK(code(ELOOP) == ErrorCode::invalid_request);
  CHECK(code(EIO) == ErrorCode::internal);
  CHECK(explain(Refusal::file_error, EIO).fault == Fault::server);
  CHECK(explain(Refusal::file_error, ENOENT).what.find("`a.txt`") != std::string::npos);
}

TEST_CASE("the launcher's statuses become errors that name the step", "[manager]") {
  wire::LauncherReply reply;
  reply.status = wire::LauncherStatus::setup_failed;
  reply.stage = wire::Stage::pivot_root;
  CHECK(explain_launcher(reply).code == ErrorCode::sandbox_failed);
  CHECK(explain_launcher(reply).what.find("pivot_root") != std::string::npos);
  reply.status = wire::LauncherStatus::no_capacity;
  CHECK(explain_launcher(reply).code == ErrorCode::overloaded);
}

TEST_CASE("an ended session says when and why", "[manager]") {
  const Error error = session_ended("session-x", 1'700'000'000'123, EndReason::idle);
  CHECK(error.code == ErrorCode::session_ended);
  CHECK(
      error.what ==
      "session session-x ended at 2023-11-14T22:13:20.123Z (idle); create a new one with POST /v1/sessions");
}
