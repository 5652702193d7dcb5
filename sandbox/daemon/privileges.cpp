// See privileges.h.
#include "sandbox/daemon/privileges.h"

#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace codespace::daemon {

Result<void> drop_privileges(const std::string& user) {
  if (::geteuid() == 0) {
    if (user.empty())
      return server_error(ErrorCode::internal, "started as root without --user NAME; this daemon must not run as root (deploy/ has the service users)");
    const passwd* pw = ::getpwnam(user.c_str());
    if (pw == nullptr || pw->pw_uid == 0) return server_error(ErrorCode::internal, "--user " + user + " is not an unprivileged user of this machine");
    for (int cap = 0; ::prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; ++cap) {
      if (::prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0) return sys_error(errno, "drop bounding capability");
    }
    const gid_t gid = pw->pw_gid;
    const uid_t uid = pw->pw_uid;
    if (::setgroups(0, nullptr) != 0 || ::setresgid(gid, gid, gid) != 0 || ::setresuid(uid, uid, uid) != 0)
      return sys_error(errno, "become " + user);
  }
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct held[2]{}, none[2]{};
  if (::syscall(SYS_capget, &header, held) != 0) return sys_error(errno, "capget");
  const auto some = [](const __user_cap_data_struct& part) { return (part.effective | part.permitted | part.inheritable) != 0; };
  // A service manager that gave none may have filtered the call away with them.
  if ((some(held[0]) || some(held[1])) && ::syscall(SYS_capset, &header, none) != 0) return sys_error(errno, "capset");
  (void)::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return sys_error(errno, "no_new_privs");
  return {};
}

}  // namespace codespace::daemon
