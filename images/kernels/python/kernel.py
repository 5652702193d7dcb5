# The Python kernel driver: one process that keeps a namespace between runs and speaks the
# frames of ../PROTOCOL.md on descriptor 3. Runs as the session's user with `python3 -I -S`, so
# it also does what `site` would have done. Two starts end in start(): init executes this file,
# or a zygote that has read it forks. Only modules that are part of the interpreter are imported
# here, for the first start is on the path of a session's first run; what a value, an error or
# an `await` needs lives in the other files and is loaded when it is needed.
import _ast
import _signal
import _thread
import builtins
import posix
import sys

# Functions defined below look their builtins up here, so a tenant that patches the
# builtins module changes its own code and not this driver.
__builtins__ = dict(vars(builtins))

EXECUTE, CONFIGURE, READY, RESULT, ERROR, DONE = 1, 2, 16, 17, 18, 19
MAX_PAYLOAD = 4 * 1024 * 1024
MAX_VALUE = 64 * 1024  # of an error's text; the whole of it went to stderr

ONLY_AST = 0x400
TOP_LEVEL_AWAIT = 0x2000
IS_COROUTINE = 0x80
FUTURE_FLAGS = 0x1FE0000  # CO_FUTURE_*: a `from __future__` holds for the later cells too

HIGH_FD = 200  # out of the way of programs that count on the next free descriptor
HERE = __file__.rpartition("/")[0]
EXTENSION = ".pyc" if __file__.endswith(".pyc") else ".py"

PID = MAIN_THREAD = control = -1  # of this process: set by start()
IN = OUT = ERR = None  # the streams a run starts with; a zygote's child finds them made
spare = {}
site_dirs = []
send_lock = _thread.allocate_lock()
running = False      # the tenant's code is on the stack: SIGINT means something
sending = False      # a frame is half written: an interrupt waits until it is whole
interrupted = False
future_flags = 0
sources = {}         # "<cell 3>" -> its text, for tracebacks and inspect
current = 0          # the number of the run under way, 0 between runs
late_error = None    # of code that a magic ran and that did not come up through the cell
parts = {}
STDLIB = [p for p in sys.path if p]
kernel = sys.modules[__name__]  # this module, for the parts; the tenant gets a __main__ of its own
tenant = type(sys)("__main__")
tenant.__builtins__ = builtins


# ---- frames ---------------------------------------------------------------------------

def u32(number):
    return number.to_bytes(4, "little")


def field(text):
    raw = text if type(text) is bytes else text.encode("utf-8", "backslashreplace")
    return u32(len(raw)) + raw


def read_exact(count):
    pieces = []
    while count:
        piece = posix.read(control, count)
        if not piece:
            posix._exit(0)  # the session goes away
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


def send(kind, payload):
    """Writes one frame whole. A forked child must never speak for its parent."""
    global sending
    if posix.getpid() != PID:
        return
    main = _thread.get_ident() == MAIN_THREAD
    if main:
        sending = True
    elif load_part("threads").is_late():
        return  # the run it would be for has ended
    try:
        with send_lock:
            data = u32(kind) + u32(len(payload)) + payload
            at = 0
            while at < len(data):
                at += posix.write(control, data[at:at + 262144])
    finally:
        if main:
            sending = False
    if main and running and interrupted:
        raise KeyboardInterrupt


def send_result(is_main, bundle):
    """`bundle` is a dict of MIME type to text. What does not fit in a frame is named, not lost silently."""
    kept, notes, room = {}, [], MAX_PAYLOAD - 8192
    for mime, text in bundle.items():
        data = text.encode("utf-8", "backslashreplace")
        if len(data) + len(mime) + 8 <= room:
            kept[mime] = data
            room -= len(data) + len(mime) + 8
        else:
            notes.append("[%s left out: %d bytes do not fit into a result of 4 MiB; "
                         "write it to a file in /workspace and read that]" % (mime, len(data)))
    if notes:
        kept["text/plain"] = b"\n".join([kept.get("text/plain", b""), *[n.encode() for n in notes]]).lstrip(b"\n")
    if kept:
        send(RESULT, (b"\1" if is_main else b"\0") + u32(len(kept)) +
             b"".join([field(mime) + field(data) for mime, data in kept.items()]))


def send_error(name, value, lines):
    raw = value.encode("utf-8", "backslashreplace")
    if len(raw) > MAX_VALUE:
        raw = raw[:MAX_VALUE] + b" [cut: %d bytes in all]" % len(raw)
    if sum(map(len, lines)) > MAX_PAYLOAD // 8 or len(lines) > 2000:
        lines = [line[:500] for line in lines[:1000]] + ["[%d lines in all, the rest is on stderr]" % len(lines)]
    send(ERROR, field(name) + field(raw) + u32(len(lines)) + b"".join(map(field, lines)))


# ---- parts that are loaded on need ----------------------------------------------------

def read_code(name):
    """What is in a sibling file of this driver."""
    path = HERE + "/" + name + EXTENSION
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    data = b""
    while piece := posix.read(fd, 1 << 20):
        data += piece
    posix.close(fd)
    if EXTENSION == ".pyc":
        import marshal
        return marshal.loads(data[16:])
    return compile(data, path, "exec", dont_inherit=True)


def load_part(name):
    """A sibling file of this driver as a module of its own, outside sys.modules."""
    if name not in parts:
        code = read_code(name)
        module = type(sys)("codespace_" + name)
        module.__dict__.update(__builtins__=__builtins__, kernel=kernel)
        exec(code, module.__dict__)
        parts[name] = module
    return parts[name]


def copy_driver():
    """This driver once more, as a module that was not started."""
    copy = type(sys)("codespace_kernel")
    copy.__file__ = __file__
    sys.modules[copy.__name__] = copy
    try:
        exec(read_code("kernel"), copy.__dict__)
    finally:
        del sys.modules[copy.__name__]
    return copy


def import_stdlib(name):
    """Imports for the driver's own use, blind to files of the tenant with the same name."""
    if name in sys.modules:
        return sys.modules[name]
    saved, sys.path = sys.path, STDLIB
    busy, LastResort.busy = LastResort.busy, True
    try:
        __import__(name)
        return sys.modules[name]
    finally:
        sys.path = saved
        LastResort.busy = busy


def display(*objects, **options):
    """Shows values as results of this run, in order; like IPython's function of that name."""
    return load_part("display").display(*objects, **options)


def find_shell():
    """IPython's shell over the tenant's names, made now if need be; None where IPython is not installed."""
    if "shell" not in parts:
        saved, sys.path = sys.path, [path for path in sys.path if path]
        try:
            load_part("shell").create()
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] != "IPython":
                raise
            return None
        finally:
            sys.path = saved
    return parts["shell"].shell


def in_shell(name, *args):
    """What IPython does beside a cell. It lives on the tenant's builtins: broken ones must not end the kernel."""
    try:
        return getattr(parts["shell"], name)(*args)
    except Exception:
        return None


def get_ipython():
    """IPython's shell, as in a notebook."""
    # Libraries ask for it to find out where they run. Only a cell's own call, or one by way of
    # IPython, is worth the time of loading it.
    caller = sys._getframe(1).f_globals
    shell = find_shell() if "shell" in parts or caller is tenant.__dict__ or "IPython" in sys.modules else None
    if shell is None and "IPython" not in sys.modules:
        raise NameError("name 'get_ipython' is not defined", name="get_ipython")
    return shell


class LateHooks:
    """First finder: for these modules, something is to be done right after their import."""
    names = {"linecache", "threading", "matplotlib.pyplot", "IPython.core.display_functions", "IPython.core.getipython"}

    @staticmethod
    def after(name, module):
        LateHooks.names.discard(name)
        if name == "linecache":
            publish_sources(module)
        elif name == "threading":
            load_part("threads").watch(module)
        elif name == "IPython.core.getipython":
            module.get_ipython = get_ipython
        else:
            load_part("display").after_import(name, module)

    @staticmethod
    def catch_up():
        for name in LateHooks.names & sys.modules.keys():
            LateHooks.after(name, sys.modules[name])

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name not in LateHooks.names:
            return None
        for finder in sys.meta_path:
            if finder is LateHooks or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is None:
                continue
            loader = spec.loader
            original = loader.exec_module

            def exec_module(module):
                original(module)
                LateHooks.after(name, module)

            loader.exec_module = exec_module
            return spec
        return None


class LastResort:
    """Last finder: a module nobody found may have been written a moment ago, installed by pip
    into a directory that did not exist at start, or be named in a .pth file."""
    busy = False
    seen_pth = None

    @staticmethod
    def find_spec(name, path=None, target=None):
        if path is not None or LastResort.busy:
            return None
        LastResort.busy = True
        try:
            cache = sys.path_importer_cache
            for entry in [e for e, finder in cache.items() if finder is None]:
                del cache[entry]
            for finder in list(cache.values()):
                if hasattr(finder, "invalidate_caches"):
                    finder.invalidate_caches()
            LastResort.read_pth_files()
            for finder in list(sys.meta_path):
                if finder is LastResort or not hasattr(finder, "find_spec"):
                    continue
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    return spec
            return None
        finally:
            LastResort.busy = False

    @staticmethod
    def read_pth_files():
        found = []
        for directory in site_dirs:
            try:
                found += [(directory, n) for n in sorted(posix.listdir(directory)) if n.endswith(".pth")]
            except OSError:
                pass
        if found == LastResort.seen_pth:
            return
        known = LastResort.seen_pth or []
        LastResort.seen_pth = found
        site = import_stdlib("site")
        paths = set(sys.path)
        for directory, name in found:
            if (directory, name) not in known:
                site.addpackage(directory, name, paths)


# ---- what `site` would have done ------------------------------------------------------

if sys.prefix == "/usr":
    SYSTEM_SITE_DIRS = ["/usr/local/lib/python%d.%d/dist-packages" % sys.version_info[:2], "/usr/lib/python3/dist-packages"]
else:
    SYSTEM_SITE_DIRS = ["%s/lib/python%d.%d/site-packages" % (sys.prefix, *sys.version_info[:2])]


class Quitter:
    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return "Use %s() to end this run" % self.name

    def __call__(self, code=None):
        raise SystemExit(code)


class Helper:
    def __repr__(self):
        return "Type help(object) for help about object."

    def __call__(self, *args, **kwargs):
        return import_stdlib("pydoc").help(*args, **kwargs)


def setup_interpreter():
    sys.argv = [""]
    sys.meta_path.insert(0, LateHooks)
    sys.meta_path.append(LastResort)
    LateHooks.catch_up()
    builtins.exit, builtins.quit, builtins.help = Quitter("exit"), Quitter("quit"), Helper()
    builtins.display, builtins.get_ipython = display, get_ipython
    sys.modules["__main__"] = tenant


def set_variable(name, value):
    posix.environ[name] = value  # os.environ, once `os` is imported, is a view of this dictionary
    posix.putenv(name, value)


def apply_environment():
    """What the environment says about this process. Again after a `configure` frame."""
    global site_dirs
    env = posix.environ
    if b"MPLBACKEND" not in env:
        set_variable(b"MPLBACKEND", b"Agg")
    version = "python%d.%d" % sys.version_info[:2]
    home = env.get(b"HOME", b"/home/sandbox").decode("utf-8", "surrogateescape")
    site_dirs = ["%s/.local/lib/%s/site-packages" % (home, version), *SYSTEM_SITE_DIRS]
    extra = env.get(b"PYTHONPATH", b"").decode("utf-8", "surrogateescape")
    sys.path = ["", *[p for p in extra.split(":") if p], *STDLIB, *site_dirs]
    if b"TZ" in env and "time" in sys.modules:
        sys.modules["time"].tzset()
    if "preload" in parts:
        parts["preload"].apply_environment()


def configure(payload, fresh):
    """The session's variables, from a frame instead of from exec; later ones that it was given, if not `fresh`."""
    fields = []
    at = 4
    while at < len(payload):
        size = int.from_bytes(payload[at:at + 4], "little")
        fields.append(payload[at + 4:at + 4 + size])
        at += 4 + size
    if at != len(payload) or len(fields) != 2 * int.from_bytes(payload[:4], "little"):
        posix._exit(1)  # not what init sends
    for name, value in zip(fields[::2], fields[1::2]):
        set_variable(name, value)
    if fresh:
        apply_environment()  # not later: sys.path is the tenant's by then


def move_up(fd):
    """A copy of it out of the way. Nobody has opened anything yet, so the number is free."""
    try:  # fcntl() would do too, but makes and drops an exception for every number it is given
        return posix.dup2(fd, HIGH_FD + fd, False)
    except OSError:  # a low RLIMIT_NOFILE
        return posix.dup(fd)


def setup_descriptors():
    """Moves the control channel out of the tenant's way and keeps spares of stdout and stderr."""
    global control

    control = move_up(3)
    posix.close(3)
    for fd in (1, 2):
        st = posix.fstat(fd)
        spare[fd] = (move_up(fd), st.st_dev, st.st_ino)


def open_stream(fd):
    """Line by line: what was printed before a kill is in the pipe, in order."""
    mode = "w" if fd else "r"
    stream = open(fd, mode, encoding="utf-8", errors="surrogateescape" if fd < 2 else "backslashreplace",
                  buffering=1 if fd else -1, closefd=False)
    stream.buffer.raw.name = ("<stdin>", "<stdout>", "<stderr>")[fd]
    stream.mode = mode
    return stream


def open_streams():
    global IN, OUT, ERR
    IN, OUT, ERR = open_stream(0), open_stream(1), open_stream(2)


def restore_streams():
    """Whatever the last run did to its streams, this one starts with working ones."""
    global IN, OUT, ERR
    for fd, (copy, dev, ino) in spare.items():
        try:
            st = posix.fstat(fd)
            if st.st_ino == ino and st.st_dev == dev:
                continue
        except OSError:
            pass
        try:
            posix.dup2(copy, fd)
        except OSError:
            pass  # the tenant closed the spare too: this context has no output any more
    if OUT.closed:
        OUT = open_stream(1)
    if ERR.closed:
        ERR = open_stream(2)
    if IN is None or IN.closed:
        posix.dup2(posix.open("/dev/null", posix.O_RDONLY), 0)
        IN = open_stream(0)
    sys.stdin = sys.__stdin__ = IN
    sys.stdout = sys.__stdout__ = OUT
    sys.stderr = sys.__stderr__ = ERR
    if _signal.getsignal(_signal.SIGINT) is not on_sigint:
        _signal.signal(_signal.SIGINT, on_sigint)


c_flush = None   # C's fflush, once it is known
preloaded = 0    # how many modules a zygote's child was born with


def flush_streams():
    global c_flush
    for stream in {id(stream): stream for stream in (sys.stdout, sys.stderr, OUT, ERR)}.values():
        try:
            stream.flush()
        except BaseException:
            pass  # a tenant's own stream object, or a closed one
    if "ctypes" in sys.modules or (c_flush and len(sys.modules) > preloaded):
        # Only code that came through ctypes or an extension fills C's own stdout buffer.
        try:
            c_flush = c_flush or sys.modules["ctypes"].CDLL(None).fflush
            c_flush(None)
        except BaseException:
            pass  # the tenant's own idea of what ctypes is


# ---- a run ----------------------------------------------------------------------------

def on_sigint(number, frame):
    global interrupted
    if not running:
        return  # between runs an interrupt means nothing
    interrupted = True
    if not sending:
        raise KeyboardInterrupt


def publish_sources(linecache, names=None):
    """What of the cells `linecache` does not know yet: one of them in each run, all for a traceback."""
    for name in names or sources:
        if name not in linecache.cache:
            text = sources[name]
            linecache.cache[name] = (len(text), None, text.splitlines(True), name)


def parse(source, filename):
    flags = ONLY_AST | TOP_LEVEL_AWAIT | future_flags
    try:
        return source, compile(source, filename, "exec", flags, dont_inherit=True)
    except SyntaxError:
        text = load_part("notebook").as_python(source)
        if text is None:
            raise
    return text, compile(text, filename, "exec", flags, dont_inherit=True)


def is_silenced(source, node):
    """True if a semicolon follows the last expression."""
    line = source.split("\n")[node.end_lineno - 1].encode("utf-8", "surrogatepass")
    return line[node.end_col_offset:].partition(b"#")[0].rstrip().endswith(b";")


def evaluate(tree, filename, mode, namespace):
    global future_flags
    code = compile(tree, filename, mode, TOP_LEVEL_AWAIT | future_flags, dont_inherit=True)
    future_flags |= code.co_flags & FUTURE_FLAGS
    if code.co_flags & IS_COROUTINE:
        return load_part("waiting").run(eval(code, namespace))
    return eval(code, namespace)


def run_cell(source, filename):
    source = source.replace("\r\n", "\n").lstrip("\ufeff")
    sources[filename] = source
    text, tree = parse(source, filename)
    remember_input(source, text)
    try:
        run_tree(text, tree, filename)
    except NameError as error:
        text = load_part("notebook").bare_magic(source, error.name) if error.name else None
        if text is None:
            raise
        run_tree(*parse(text, filename), filename)


def run_tree(source, tree, filename):
    sources[filename] = source
    if "linecache" in sys.modules:
        publish_sources(sys.modules["linecache"], (filename,))
    namespace = tenant.__dict__
    body = tree.body
    if "shell" in parts:
        body = tree.body = in_shell("interactive", body) or body
    last = body.pop() if body and type(body[-1]) is _ast.Expr else None
    if body:
        evaluate(tree, filename, "exec", namespace)
    if last is not None:
        value = evaluate(_ast.Expression(last.value), filename, "eval", namespace)
        if value is not None and not is_silenced(source, last):
            show(value)


PLAIN = {int, float, bool, complex, str, bytes}


def show(value):
    if type(value) in PLAIN and "shell" not in parts:
        bundle = {"text/plain": repr(value)}
    else:
        bundle = load_part("display").bundle(value, is_main=True)
    remember_output(value)
    if bundle:
        send_result(True, bundle)


# In, Out and the names with underscores. They are builtins, so that a namespace holds what the
# tenant put there; with IPython's shell they are where it has them.
inputs, outputs = [""], {}
MAX_OUTPUTS = 1000  # IPython's own bound


def remember_input(source, text):
    if "shell" in parts:
        in_shell("remember_input", current, source, text)
        return
    names = vars(builtins)
    inputs.append(source)
    names.update(In=inputs, Out=outputs, _i=inputs[-2], _ii="".join(inputs[-3:-2]), _iii="".join(inputs[-4:-3]))
    names["_i%d" % current] = source


def remember_output(value):
    if "shell" in parts:
        in_shell("remember_output", value)
        return
    names = vars(builtins)
    if value is outputs:
        return
    if outputs and names.get("_") is not outputs.get(next(reversed(outputs))):
        pass  # the tenant's own, gettext's for example
    else:
        names.update(_=value, __=names.get("_", ""), ___=names.get("__", ""))
    if len(outputs) >= MAX_OUTPUTS:
        names.pop("_%d" % next(iter(outputs)), None)
        del outputs[next(iter(outputs))]
    outputs[current] = names["_%d" % current] = value


def one_run(count, raw):
    global running, interrupted, current, late_error
    begin_run(count)
    threads = set(sys._current_frames()) if _thread._count() else {MAIN_THREAD}
    interrupted = False
    late_error = failure = None
    try:
        try:
            running = True
            source = raw.decode("utf-8")
            if "shell" in parts:
                in_shell("before_cell", source)
            run_cell(source, "<cell %d>" % count)
        except BaseException as error:
            failure = error
        if posix.getpid() == PID:
            if "shell" in parts:
                in_shell("after_cell", failure or late_error)
            if "matplotlib.pyplot" in sys.modules:
                load_part("display").flush_figures()
    except BaseException as error:
        failure = failure or error
    running = False
    status = 0
    failure = failure or late_error
    if failure is not None:
        status = load_part("errors").report(failure)
        failure.__traceback__ = late_error = None  # would keep the tenant's frames, and all they hold, alive
    end_run()
    if posix.getpid() != PID:
        posix._exit(status)  # a forked child came back from its cell: its program ends here
    if interrupted and _thread._count():
        load_part("threads").stop(threads)


def begin_run(count):
    global current
    restore_streams()
    if _thread._count():
        load_part("threads").note(-1)
        load_part("threads").muffle(OUT)
        load_part("threads").muffle(ERR)
    elif "threads" in parts:
        parts["threads"].unmuffle(OUT)
        parts["threads"].unmuffle(ERR)
    current = count
    tenant.__dict__.pop("__warningregistry__", None)  # once in a cell, as in a notebook


def end_run():
    global current
    if _thread._count():
        load_part("threads").note(current)
        load_part("threads").muffle(OUT)
        load_part("threads").muffle(ERR)
        current = 0
    flush_streams()
    current = 0


def serve():
    send(READY, b"")
    fresh = True
    while True:
        header = read_exact(8)
        kind = int.from_bytes(header[:4], "little")
        payload = read_exact(int.from_bytes(header[4:], "little"))
        if kind == CONFIGURE:
            configure(payload, fresh)
        elif kind == EXECUTE:
            one_run(int.from_bytes(payload[:4], "little"), payload[4:])
            send(DONE, b"")
            fresh = False
        else:
            posix._exit(1)


def start():
    """Everything that belongs to this process alone, in a child of a zygote as after exec."""
    global PID, MAIN_THREAD
    PID = posix.getpid()
    MAIN_THREAD = _thread.get_ident()
    setup_descriptors()
    if OUT is None:  # a zygote has done this once for all its children
        open_streams()
        setup_interpreter()
        apply_environment()
        _signal.signal(_signal.SIGINT, on_sigint)
    serve()


if __name__ == "__main__":
    driver = kernel
    if sys.argv[1:2] == ["zygote"]:
        driver = load_part("preload").make_driver()
        # Returns only in a forked child, which is the tenant in its session and has 0 to 3 in place.
        driver.load_part("zygote").run(sys.argv[2])
    driver.start()
