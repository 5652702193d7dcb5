// From closed sets of refusals to errors with sentences. `what` of a client's error is shown
// to the client as it is; that of a server's error goes to the log.
#include "sandbox/manager/refusals.h"

#include <errno.h>
#include <time.h>

#include <cstdio>

#include "sandbox/manager/store.h"

namespace codespace::manager {
namespace {

Error client(ErrorCode code, std::string what, int sys_errno = 0) {
  return {code, Fault::client, sys_errno, std::move(what)};
}

Error server(ErrorCode code, std::string what, int sys_errno = 0) {
  return {code, Fault::server, sys_errno, std::move(what)};
}

std::string quoted(std::string_view text) { return "`" + std::string(text.substr(0, 256)) + "`"; }

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

Error explain_spawn(const Refused& refused, const Asked& asked, bool of_kernel) {
  if (refused.stage == wire::Stage::spawn_cwd && !of_kernel) {
    Error error = explain_file_errno(refused.sys_errno, asked.cwd.empty() ? "/workspace" : asked.cwd);
    error.what = "the command was not started, because of its `cwd`: " + error.what;
    return error;
  }
  const std::string what = of_kernel ? "the interpreter" : "the shell";
  if (refused.sys_errno == EAGAIN || refused.sys_errno == ENOMEM)
    return client(ErrorCode::overloaded,
                  what +
                      " could not be started: the session has used up its processes or its memory. End what "
                      "runs in it, or create the session with higher limits.pids or limits.memory_bytes",
                  refused.sys_errno);
  return server(ErrorCode::kernel_unavailable,
                what + " could not be started, at step " + std::string(name_of(refused.stage)) + ": " +
                    refused.detail + "; try again, or delete the session and create a new one",
                refused.sys_errno);
}

}  // namespace

Error explain_refusal(const Refused& refused, const Asked& asked) {
  using enum wire::Refusal;
  switch (refused.why) {
    case bad_request:
      return server(ErrorCode::internal, "init refused a frame of this gateway: " + refused.detail,
                    refused.sys_errno);
    case run_not_found:
      return client(ErrorCode::run_not_found,
                    "this session has no such run or command; results are kept for a while, not for ever");
    case unknown_language:
      return client(ErrorCode::unknown_language,
                    "the image of this session has no interpreter for " + quoted(asked.language) +
                        (asked.languages.empty() ? "" : "; it has: " + joined(asked.languages)) +
                        ". GET /v1/images lists what each image runs");
    case overloaded:
      return client(ErrorCode::overloaded,
                    (refused.detail.empty() ? "the session is busy" : refused.detail) +
                        "; wait until something of it has finished and send this again");
    case queue_timeout:
      return client(
          ErrorCode::queue_timeout,
          "the deadline passed while this waited for an earlier run of the same kernel, so it was never "
          "started; send it again with more time, or use another context or session");
    case too_many_contexts:
      return client(ErrorCode::quota_exceeded,
                    "this session has " + refused.detail +
                        " contexts, which is the most it may have; delete one with DELETE "
                        "/v1/sessions/{id}/contexts/{language}/{context}, or use one it has");
    case context_not_found:
      return client(ErrorCode::context_not_found,
                    "this session has no context " + quoted(asked.context) + " of language " + quoted(asked.language) +
                        "; GET /v1/sessions/{id}/contexts lists those it has");
    case kernel_failed:
      return explain_spawn(refused, asked, true);
    case spawn_failed:
      return explain_spawn(refused, asked, false);
    case file_error:
      return explain_file_errno(refused.sys_errno, asked.path);
    case not_regular:
      return client(ErrorCode::not_a_file,
                    quoted(asked.path) +
                        " is not a regular file (it is a FIFO, device or socket); only regular "
                        "files can be read and written");
    case is_directory:
      return client(ErrorCode::is_a_directory, quoted(asked.path) + " is a directory; name a file in it");
    case too_large:
      return client(ErrorCode::file_too_large,
                    quoted(asked.path) + " would be larger than the " + std::to_string(asked.size_limit) +
                        " bytes that one write may have; the old file is unchanged");
    case invalid_path:
      return client(ErrorCode::invalid_request,
                    quoted(asked.path) + " is not a usable path: it is empty, too long, or has a NUL byte");
    case deadline:
      return client(ErrorCode::deadline_exceeded,
                    "the file work on " + quoted(asked.path) +
                        " took too long and was stopped; work on a smaller part");
  }
  return server(ErrorCode::internal,
                "init gave an unknown refusal " + std::to_string(static_cast<std::uint32_t>(refused.why)));
}

Error explain_file_errno(int file_errno, std::string_view path) {
  const std::string name = quoted(path);
  switch (file_errno) {
    case ENOENT:
      return client(ErrorCode::file_not_found, name + " does not exist", file_errno);
    case EACCES:
    case EPERM:
      return client(ErrorCode::permission_denied,
                    "the modes of " + name + ", or of a directory above it, do not permit this; a session writes in /workspace, /tmp and /home/sandbox", file_errno);
    case EROFS:
      return client(
          ErrorCode::permission_denied,
          name + " is on the read-only part of the session; write under /workspace, /tmp or the home",
          file_errno);
    case ENOSPC:
    case EDQUOT:
    case ENOMEM:
      return client(ErrorCode::no_space,
                    "no space left for " + name +
                        "; delete files, or create the session with a higher "
                        "limits.workspace_bytes",
                    file_errno);
    case ENOTDIR:
      return client(ErrorCode::not_a_directory,
                    name + " is not a directory, or something above it is not one", file_errno);
    case EISDIR:
      return client(ErrorCode::is_a_directory, name + " is a directory", file_errno);
    case EEXIST:
      return client(ErrorCode::file_exists, name + " exists already", file_errno);
    case ENOTEMPTY:
      return client(ErrorCode::conflict,
                    name + " is a directory that is not empty; ask for a recursive delete", file_errno);
    case EBUSY:
    case ETXTBSY:
      return client(ErrorCode::conflict, name + " is in use: a mount point, or a program that runs",
                    file_errno);
    case EXDEV:
      return client(
          ErrorCode::conflict,
          name + " cannot be moved to another file system of the session; copy it and delete the old one",
          file_errno);
    case ELOOP:
      return client(ErrorCode::invalid_request, name + " goes through too many symbolic links", file_errno);
    case ENAMETOOLONG:
      return client(ErrorCode::invalid_request, name + " is too long for a path", file_errno);
    case EINVAL:
      return client(
          ErrorCode::invalid_request,
          "this cannot be done with " + name + "; a directory, for example, cannot move into itself",
          file_errno);
    case ENXIO:
    case ESPIPE:
    case ENODEV:
      return client(ErrorCode::not_a_file, name + " is not a regular file", file_errno);
    case EFBIG:
      return client(ErrorCode::file_too_large, name + " would be larger than its file system allows",
                    file_errno);
    default:
      return server(ErrorCode::internal, "file work on " + name + " failed in the session", file_errno);
  }
}

Error explain_launcher(const wire::LauncherReply& reply) {
  using enum wire::LauncherStatus;
  const std::string step(name_of(reply.stage));
  switch (reply.status) {
    case no_capacity:
      return server(
          ErrorCode::overloaded,
          "this machine cannot hold more sessions (no ids left); delete sessions, or give the launcher a "
          "larger --id-range",
          reply.sys_errno);
    case setup_failed:
      return server(ErrorCode::sandbox_failed,
                    "the sandbox could not be made, at step " + step +
                        "; nothing of it is left. The launcher's log says more",
                    reply.sys_errno);
    case posture_mismatch:
      return server(ErrorCode::sandbox_failed,
                    "the sandbox was confined differently from the plan and was destroyed, at step " + step +
                        "; run deploy/check-host",
                    reply.sys_errno);
    case unknown_image:
      return server(
          ErrorCode::unknown_image,
          "the launcher cannot find the image; it must be given the same image directory as the gateway",
          reply.sys_errno);
    case session_exists:
      return server(ErrorCode::internal, "the launcher has a session with this id already", reply.sys_errno);
    case unknown_session:
      return server(ErrorCode::internal, "the launcher does not know this session", reply.sys_errno);
    case bad_request:
      return server(ErrorCode::internal,
                    "the launcher refused the request; install gateway and launcher from the same version",
                    reply.sys_errno);
    case ok:
    case end_of_list:
    case ended:
      break;
  }
  return server(ErrorCode::internal, "the launcher gave an unexpected answer", reply.sys_errno);
}

Error explain_link(LinkFault fault, std::string_view what, bool heard) {
  const std::string prefix(what);
  switch (fault) {
    case LinkFault::busy:
      return client(ErrorCode::overloaded,
                    prefix + ": the session has too many requests under way; wait until some have finished");
    case LinkFault::closed:
      if (!heard)
        return client(
            ErrorCode::overloaded,
            prefix +
                ": the session took the request and closed it without an answer, as it does when it "
                "has too many; send it again");
      return server(ErrorCode::sandbox_failed, prefix +
                                                   ": the session broke off in the middle of its answer; "
                                                   "send it again, or create a new session");
    case LinkFault::malformed:
      return server(
          ErrorCode::sandbox_failed,
          prefix + ": the session answered with something that is no answer; delete it and create a new one");
    case LinkFault::expired:
      return server(
          ErrorCode::internal,
          prefix + ": the session did not answer within its time limit; delete it and create a new one");
    case LinkFault::no_listener:
    case LinkFault::none:
      break;
  }
  return server(ErrorCode::sandbox_failed,
                prefix + ": the session cannot be reached; delete it and create a new one");
}

Error session_not_found(std::string_view session_id) {
  return client(ErrorCode::session_not_found,
                "there is no session " + quoted(session_id.substr(0, 64)) + "; GET /v1/sessions lists yours");
}

Error session_ended(std::string_view session_id, std::int64_t ended_at_ms, EndReason reason) {
  std::string what = "session " + std::string(session_id) + " ended";
  if (ended_at_ms != 0) what += " at " + format_time(ended_at_ms);
  if (reason != EndReason::none) what += " (" + std::string(name_of(reason)) + ")";
  return client(ErrorCode::session_ended, what + "; create a new one with POST /v1/sessions");
}

Error session_paused(std::string_view session_id) {
  return client(ErrorCode::session_paused, "session " + std::string(session_id) +
                                               " is paused; wake it with POST /v1/sessions/" +
                                               std::string(session_id) + "/resume");
}

std::string_view name_of(wire::Stage stage) {
  using enum wire::Stage;
  switch (stage) {
    case none:
      return "none";
    case id_lease:
      return "id_lease";
    case listen_socket:
      return "listen_socket";
    case cgroup_create:
      return "cgroup_create";
    case cgroup_limits:
      return "cgroup_limits";
    case clone_namespaces:
      return "clone_namespaces";
    case cgroup_join:
      return "cgroup_join";
    case id_map:
      return "id_map";
    case child_sync:
      return "child_sync";
    case become_root:
      return "become_root";
    case mount_private:
      return "mount_private";
    case mount_root:
      return "mount_root";
    case mount_tmpfs:
      return "mount_tmpfs";
    case mount_dev:
      return "mount_dev";
    case mount_proc:
      return "mount_proc";
    case mask_proc:
      return "mask_proc";
    case pivot_root:
      return "pivot_root";
    case processors:
      return "processors";
    case network_loopback:
      return "network_loopback";
    case hostname:
      return "hostname";
    case limit_namespaces:
      return "limit_namespaces";
    case close_descriptors:
      return "close_descriptors";
    case rlimits:
      return "rlimits";
    case oom_score:
      return "oom_score";
    case securebits:
      return "securebits";
    case bounding_set:
      return "bounding_set";
    case become_init:
      return "become_init";
    case no_new_privs:
      return "no_new_privs";
    case exec_init:
      return "exec_init";
    case init_seccomp:
      return "init_seccomp";
    case init_posture:
      return "init_posture";
    case init_ready:
      return "init_ready";
    case spawn_pipe:
      return "spawn_pipe";
    case spawn_fork:
      return "spawn_fork";
    case spawn_cgroup:
      return "spawn_cgroup";
    case spawn_identity:
      return "spawn_identity";
    case spawn_cwd:
      return "spawn_cwd";
    case spawn_posture:
      return "spawn_posture";
    case spawn_exec:
      return "spawn_exec";
  }
  return "unknown";
}

std::string format_time(std::int64_t wall_ms) {
  const time_t seconds = static_cast<time_t>(wall_ms / 1000);
  tm parts{};
  ::gmtime_r(&seconds, &parts);
  char date[32];
  (void)::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &parts);
  char text[48];
  (void)std::snprintf(text, sizeof text, "%s.%03dZ", date, static_cast<int>(wall_ms % 1000));
  return text;
}

}  // namespace codespace::manager
