# What a zygote has in memory before it forks kernels, and what a child must do again for
# itself. Part of kernel.py: preload() runs once in the zygote, which has one thread, no
# session and no tenant; after_fork() and apply_environment() run in a child.
import posix
import sys

# What most first cells import and what the driver needs for a first error and a first rich value. Nothing with a thread, a
# process or a shared library of its own: every page, mapping and handler of a fork that is here is paid for in each kernel.
STANDARD = (
    "os", "re", "json", "math", "time", "datetime", "collections", "functools", "itertools", "operator", "random",
    "string", "io", "typing", "dataclasses", "enum", "copy", "pathlib", "textwrap", "linecache", "traceback", "ast",
    "warnings", "weakref", "glob", "inspect", "csv", "base64", "contextlib", "struct", "binascii",
)
# The flavour `data` has these too: its libraries import most of them.
MORE = ("threading", "subprocess", "tempfile", "shutil", "asyncio", "statistics", "hashlib", "decimal", "fractions", "logging",
        "uuid", "pickle", "concurrent.futures")
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")

POOL_BYTES, BYTES_HEAD = 16384, 33  # of obmalloc.c, and of a bytes object
MOST_BATCHES = 100  # of a size; an interpreter with another allocator is no reason to go on for ever
MALLOC_MOST = 8 * 1024 + 8  # bytes; a child asks for little that is larger

flavour = None
ctypes = None
filling = []  # fill_holes(): never used, never freed
seeded = []  # every generator that was alive before the fork and holds a state of its own


def import_standard():
    for module in STANDARD:
        kernel.import_stdlib(module)


def make_driver():
    """The driver that the children run: a copy. The one that was executed lies between all that Python made when it started,
    and who runs it writes to, and so copies, a fifth more pages of Python's heap."""
    import_standard()
    fill_holes()
    return kernel.copy_driver()


def fill_holes():
    """Takes all memory that Python has free between what it uses, so that what is allocated next lies together."""
    for size in range(16, 513, 16):  # its own allocator's classes
        for _ in range(MOST_BATCHES):
            if fill_with(size):
                break


def fill_with(size):
    """Two pools' worth of blocks. True once there was no hole left to put them in; this only ever costs memory."""
    blocks = POOL_BYTES // size - 4
    batch = [object() if size == 16 else complex(1, 1) if size == 32 else bytes(size - BYTES_HEAD) for _ in range(2 * blocks)]
    filling.append(batch)
    # Blocks of a pool that was empty come in the order of their addresses.
    first = last = 0
    for n, address in enumerate(map(id, batch)):
        if address != last + size:
            first = n
        last = address
        if n - first >= blocks:
            del batch[first:]  # that was no hole
            return True
    return False


def preload(name):
    """`min`: the usual part of the standard library. `data`: more of it, numpy, pandas, pyplot and IPython with its shell."""
    global flavour
    flavour = name
    gc = kernel.import_stdlib("gc")
    gc.disable()
    import_standard()
    for part in ("display", "errors", "notebook", "threads"):
        kernel.load_part(part)
    sys.path = [*sys.path, *kernel.SYSTEM_SITE_DIRS]
    kernel.load_part("display").find_printer()
    sys.path = kernel.STDLIB[:]
    rehearse()
    if name == "data":
        preload_libraries()
    elif name != "min":
        raise ValueError("no such flavour of the Python kernel: %r; known are min and data" % name)
    remember_generators(gc)
    make_streams()
    kernel._signal.signal(kernel._signal.SIGINT, kernel.on_sigint)
    kernel.setup_interpreter()
    kernel.apply_environment()
    threads = posix.listdir("/proc/self/task")
    if len(threads) != 1:
        raise RuntimeError("%d threads after preloading; a process with more than one must not fork kernels" % len(threads))
    gc.enable()
    gc.collect()
    gc.freeze()  # a collection in a child would write to, and so copy, every page
    settle_heap()
    if name == "min":
        # A cell that wants it imports it anew, and until one imports anything nothing of C's has to be flushed.
        for module in ("ctypes", "ctypes._endian"):
            del sys.modules[module]
    kernel.preloaded = len(sys.modules)


def rehearse():
    """Runs the way of a child's start and first cells a dozen times. Until then Python writes into the code of a
    function to fit it to its use, and each child would copy the pages of that code to do it again."""
    import builtins
    modules, signals = sys.modules, kernel._signal
    streams = ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__")
    saved = {name: getattr(sys, name) for name in (*streams, "argv", "path")}
    finders, main, interrupt = sys.meta_path[:], modules["__main__"], signals.getsignal(signals.SIGINT)
    names, own, environ = dict(vars(builtins)), dict(vars(kernel.tenant)), dict(posix.environ)
    kernel.PID, kernel.MAIN_THREAD = posix.getpid(), kernel._thread.get_ident()
    kernel.control = posix.open("/dev/null", posix.O_WRONLY | posix.O_CLOEXEC)
    try:
        posix.close(kernel.move_up(kernel.control))
        for count in range(1, 13):
            kernel.open_streams()
            kernel.setup_interpreter()
            kernel.apply_environment()
            after_fork()
            kernel.one_run(count, b"print(end='')")
            kernel.one_run(count, b"x = 1\nx + 1")
    finally:
        # Nothing of it is left but the fitted code.
        posix.close(kernel.control)
        kernel.control = kernel.PID = kernel.MAIN_THREAD = -1
        kernel.IN = kernel.OUT = kernel.ERR = None
        kernel.sources.clear()
        kernel.outputs.clear()
        kernel.inputs[:] = [""]
        for name in [name for name in modules["linecache"].cache if name.startswith("<cell ")]:
            del modules["linecache"].cache[name]
        for space, before in ((vars(builtins), names), (vars(kernel.tenant), own)):
            space.clear()
            space.update(before)
        for name in posix.environ.keys() - environ.keys():
            posix.unsetenv(name)
        posix.environ.clear()
        posix.environ.update(environ)
        for name, value in saved.items():
            setattr(sys, name, value)
        sys.meta_path[:], modules["__main__"] = finders, main
        signals.signal(signals.SIGINT, interrupt)


def make_streams():
    """A stream remembers of its file that it is a pipe, and a child's are pipes too, at the same numbers."""
    ours = {fd: posix.dup(fd) for fd in (1, 2)}
    pipe = posix.pipe()
    for fd in ours:
        posix.dup2(pipe[1], fd)
    kernel.open_streams()
    for fd, copy in ours.items():
        posix.dup2(copy, fd)
        posix.close(copy)
    posix.close(pipe[0])
    posix.close(pipe[1])


def settle_heap():
    """C's allocator puts off joining and sorting what was freed, and its linker the looking up of functions. Done here
    once, not on copied pages in every child."""
    global ctypes
    ctypes = kernel.import_stdlib("ctypes")
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    libc.malloc_trim(0)
    libc.free(libc.malloc(100_000))  # too big for any list of small ones: looks through, and sorts, all that is free
    libc.free(top := libc.malloc(100_000))
    for size in range(MALLOC_MOST, 8, -16):  # what a child asks for comes from the end of the heap, and not from everywhere
        while (block := libc.malloc(size)) < top:
            pass
        libc.free(block)
    kernel.c_flush = libc.fflush
    # What Python calls in a child right after the fork, and nowhere before.
    key = ctypes.create_string_buffer(16)  # of a Py_tss_t, with room
    ctypes.pythonapi.PyThread_tss_create(key)
    ctypes.pythonapi.PyThread_tss_delete(key)


def preload_libraries():
    for module in MORE:
        kernel.import_stdlib(module)
    kernel.load_part("waiting")
    environ = sys.modules["os"].environ
    before = dict(environ)
    kept = sys.path
    # No thread pools: a child of a process with threads finds their locks taken for ever.
    environ.update({name: "1" for name in ONE_THREAD}, MPLBACKEND="Agg", MATPLOTLIBRC="/dev/null", HOME="/home/sandbox")
    sys.path = [*sys.path, *kernel.SYSTEM_SITE_DIRS]
    sys.meta_path.insert(0, kernel.LateHooks)
    try:
        import matplotlib
        # These make a directory below HOME, and there is no home yet. A child asks them again.
        real = matplotlib.get_configdir, matplotlib.get_cachedir
        matplotlib.get_configdir = lambda: "/home/sandbox/.config/matplotlib"
        matplotlib.get_cachedir = lambda: "/home/sandbox/.cache/matplotlib"
        import matplotlib.backends.backend_agg
        import matplotlib.pyplot
        import numpy
        import pandas
        matplotlib.get_configdir, matplotlib.get_cachedir = real
        kernel.load_part("shell").create()
        sys.modules["IPython.utils.io"].devnull.close()
        sys.modules["IPython.utils.io"].devnull = Nowhere()
        warm_up()
    finally:
        sys.path = kept
        sys.meta_path.remove(kernel.LateHooks)
        environ.clear()
        environ.update(before)


class Nowhere:
    """In place of a file on /dev/null that IPython opens when it is imported: a child keeps no
    descriptor of the zygote."""

    def write(self, text):
        return len(text)

    def flush(self):
        pass


def warm_up():
    """Lazy imports and caches behind a first table and a first picture."""
    display = kernel.load_part("display")
    frame = sys.modules["pandas"].DataFrame({"a": [1.5]})
    display.bundle(frame)
    pyplot = sys.modules["matplotlib.pyplot"]
    figure = pyplot.figure()
    figure.add_subplot().plot([1, 2])
    display.figure_png(figure)
    pyplot.close(figure)
    # A font object reads from a file that stays open, and a child keeps no descriptor.
    sys.modules["matplotlib.font_manager"]._get_font.cache_clear()


def remember_generators(gc):
    random = sys.modules["random"]
    kinds = [random.Random]
    if "numpy" in sys.modules:
        kinds.append(sys.modules["numpy"].random.RandomState)
    for thing in gc.get_objects():
        # The module's own generator has a handler of its own for a fork.
        if isinstance(thing, tuple(kinds)) and not isinstance(thing, random.SystemRandom) and thing is not random._inst:
            seeded.append(thing)


def after_fork():
    """Everything with a seed or an identity is this child's own. Its environment is the zygote's,
    which is the one every program of a session starts with."""
    for generator in seeded:
        generator.seed()
    # The generators of OpenSSL and SQLite, in C, are seeded at first use, which is never before the fork.
    # Not by comparing process ids, as these modules do themselves: in its own namespace a
    # child may have the id that the zygote has in another.
    modules = sys.modules
    tempfile = modules.get("tempfile")
    if tempfile is not None:
        tempfile._name_sequence = tempfile.tempdir = None
    uuid = modules.get("uuid")
    if uuid is not None:
        uuid._node = uuid._last_timestamp = None
    process = modules.get("multiprocessing.process")
    if process is not None:
        process._current_process._config["authkey"] = process.AuthenticationString(posix.urandom(32))
    synchronize = modules.get("multiprocessing.synchronize")
    if synchronize is not None:
        synchronize.SemLock._rand = modules["tempfile"]._RandomNameSequence()


def apply_environment():
    """What preloaded modules took from the zygote's environment is taken from the session's."""
    environ = posix.environ
    matplotlib = sys.modules.get("matplotlib")
    if matplotlib is not None:
        matplotlib.rcParams["backend"] = environ[b"MPLBACKEND"].decode()
