# Threads that outlive their run. What they print or display later belongs to a run that has
# answered, so it must not appear in another's. Part of kernel.py, which loads it into its
# process when `threading` is imported or a run begins or ends with threads; `kernel` is that driver.
import _thread
import sys

owner = {}  # thread -> the run that started it, or that its starter belongs to


def is_late():
    """True for a thread of an earlier run, and between runs for every thread."""
    ident = _thread.get_ident()
    return ident != kernel.MAIN_THREAD and owner.get(ident, kernel.current) != kernel.current


def watch(threading):
    """A thread started by a late one is as late: a timer that renews itself, a pool that grows."""
    for name in ("_start_new_thread", "_start_joinable_thread"):
        if hasattr(threading, name):
            setattr(threading, name, inheriting(getattr(threading, name)))


def inheriting(start_thread):
    def start_new_thread(function, *args, **kwargs):
        run = kernel.current if _thread.get_ident() == kernel.MAIN_THREAD else owner.get(_thread.get_ident(), kernel.current)

        def body(*args, **kwargs):
            owner[_thread.get_ident()] = run
            try:
                return function(*args, **kwargs)
            finally:
                owner.pop(_thread.get_ident(), None)

        return start_thread(body, *args, **kwargs)

    return start_new_thread


def note(run):
    """Those alive now that nobody noted, started past `threading`, belong to `run`."""
    alive = sys._current_frames().keys()
    for ident in alive:
        owner.setdefault(ident, run)
    for ident in owner.keys() - alive:
        owner.pop(ident, None)


def muffle(stream):
    """Drops what late threads write. An attribute of the very object, which they may have kept."""
    if "write" in stream.__dict__:
        return
    write = stream.write
    stream.write = lambda text: len(text) if is_late() else write(text)


def unmuffle(stream):
    stream.__dict__.pop("write", None)


def stop(earlier):
    """After an interrupt nothing of the run may go on. Threads that do not obey take the kernel along."""
    preload = kernel.parts.get("preload")
    ctypes = preload.ctypes if preload else kernel.import_stdlib("ctypes")
    time = kernel.import_stdlib("time")
    for _ in range(25):
        left = [ident for ident in sys._current_frames() if ident not in earlier]
        if not left:
            return
        for ident in left:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(SystemExit))
        time.sleep(0.01)
    kernel.posix._exit(1)  # without `done`: init kills what is left and says that the context is gone
