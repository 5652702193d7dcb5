# The zygote: this driver's process image, preloaded and single-threaded, outside of every
# session. It waits in codespace-zygote.so (sandbox/zygote/join.cpp) for the launcher's
# requests; the call returns only in a child that already is the tenant inside its session.
import posix
import sys

LAST_FD = 5
LIBRARY = "/proc/self/fd/4"  # a sealed memfd; see wire::kZygoteLibraryFd


def left_open():
    found = []
    for number in posix.listdir("/proc/self/fd"):
        if int(number) > LAST_FD:
            try:
                found.append(posix.readlink("/proc/self/fd/" + number))
            except OSError:
                pass  # that of the listing itself
    return found


def run(flavour):
    preload = kernel.load_part("preload")
    preload.preload(flavour)
    left = left_open()
    if left:
        raise RuntimeError("preloading left files open: %s; what uses them would fail in a kernel" % left)
    ctypes = preload.ctypes
    serve = ctypes.PyDLL(LIBRARY, use_errno=True).codespace_zygote_serve
    serve.argtypes = ctypes.c_uint, ctypes.c_void_p
    after_fork = ctypes.cast(ctypes.pythonapi.PyOS_AfterFork_Child, ctypes.c_void_p)
    # The child shows the arguments of a driver that was executed: without "zygote FLAVOUR".
    shown = sum(len(argument.encode()) + 1 for argument in sys.orig_argv[:-2])
    if serve(shown, after_fork) != 0:
        raise OSError(ctypes.get_errno(), "the zygote could not begin to serve")
    del sys.argv[1:], sys.orig_argv[-2:]
    preload.after_fork()
