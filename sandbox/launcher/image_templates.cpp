// Building of template roots. Runs in the launcher's main process, in its small root, as
// root of the outer namespace. Paths here come from the image store alone.
#include "sandbox/launcher/image_templates.h"

#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "sandbox/sys/syscalls.h"

namespace codespace::launcher {
namespace {

using sys::UniqueFd;

std::string hex_of_handle(std::uint64_t handle) {
  char hex[17];
  ::snprintf(hex, sizeof hex, "%016llx", static_cast<unsigned long long>(handle));
  return hex;
}

Result<void> attach_read_only(const UniqueFd& tree, const std::string& target) {
  mount_attr attr{};
  attr.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
  if (sys::mount_setattr(tree.get(), "", AT_EMPTY_PATH | AT_RECURSIVE, attr) != 0)
    return sys_error(errno, "mount_setattr " + target);
  if (sys::move_mount(tree.get(), "", AT_FDCWD, target.c_str(), MOVE_MOUNT_F_EMPTY_PATH) != 0)
    return sys_error(errno, "move_mount " + target);
  return {};
}

Result<void> fill_dev(const std::string& dev) {
  if (::mount("tmpfs", dev.c_str(), "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755,size=64k,nr_inodes=64") != 0)
    return sys_error(errno, "mount " + dev);
  for (const char* name : {"null", "zero", "full", "random", "urandom", "tty"}) {
    const std::string target = dev + "/" + name;
    UniqueFd file(::open(target.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0666));
    if (!file) return sys_error(errno, "create " + target);
    const std::string source = std::string("/devices/") + name;
    if (::mount(source.c_str(), target.c_str(), nullptr, MS_BIND, nullptr) != 0)
      return sys_error(errno, "bind " + target);
    if (::mount(nullptr, target.c_str(), nullptr, MS_BIND | MS_REMOUNT | MS_NOSUID | MS_NOEXEC | MS_RDONLY, nullptr) != 0)
      return sys_error(errno, "remount " + target);
  }
  const struct {
    const char* name;
    const char* points_to;
  } links[] = {{"/fd", "/proc/self/fd"},         {"/stdin", "/proc/self/fd/0"}, {"/stdout", "/proc/self/fd/1"},
               {"/stderr", "/proc/self/fd/2"}, {"/ptmx", "pts/ptmx"}};
  for (const auto& link : links) {
    if (::symlink(link.points_to, (dev + link.name).c_str()) != 0) return sys_error(errno, "symlink " + dev + link.name);
  }
  for (const char* dir : {"/pts", "/shm"}) {
    if (::mkdir((dev + dir).c_str(), 0755) != 0) return sys_error(errno, "mkdir " + dev + dir);
  }
  if (::mount(nullptr, dev.c_str(), nullptr, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NOEXEC, nullptr) != 0)
    return sys_error(errno, "make /dev read-only");
  return {};
}

Result<void> build(const std::string& hex, const std::string& target) {
  UniqueFd images(::open("/images", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!images) return sys_error(errno, "open image store");
  const std::string rootfs = hex + "/rootfs";
  UniqueFd root(sys::openat2(images.get(), rootfs.c_str(), O_PATH | O_DIRECTORY,
                             RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS));
  if (!root) return client_error(ErrorCode::unknown_image, "image " + hex + " is not in the store");
  if (::mkdir(target.c_str(), 0755) != 0) return sys_error(errno, "mkdir " + target);
  UniqueFd tree(sys::open_tree(root.get(), "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE));
  if (!tree) return sys_error(errno, "open_tree rootfs of " + hex);
  if (auto attached = attach_read_only(tree, target); !attached) return attached;
  // The embedded image has no /usr of its own and says so with this file beside its rootfs.
  if (::faccessat(images.get(), (hex + "/bind-host-usr").c_str(), F_OK, 0) == 0) {
    UniqueFd usr(sys::open_tree(AT_FDCWD, "/usr", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE));
    if (!usr) return sys_error(errno, "open_tree /usr");
    if (auto attached = attach_read_only(usr, target + "/usr"); !attached) return attached;
  }
  return fill_dev(target + "/dev");
}

}  // namespace

std::string template_path(std::uint64_t handle) { return "/templates/" + hex_of_handle(handle); }

std::uint64_t ImageTemplates::made_at(std::uint64_t handle) const {
  const auto found = made_.find(handle);
  return found == made_.end() ? 0 : found->second;
}

Result<void> ImageTemplates::ensure(std::uint64_t handle) {
  if (made_.contains(handle)) return {};
  const std::string target = template_path(handle);
  if (auto built = build(hex_of_handle(handle), target); !built) {
    // Half a template must never be used: take it down, mounts first.
    ::umount2(target.c_str(), MNT_DETACH);
    ::rmdir(target.c_str());
    return built;
  }
  made_.emplace(handle, made_.size() + 1);
  return {};
}

}  // namespace codespace::launcher
