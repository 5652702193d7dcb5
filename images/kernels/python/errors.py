# How an uncaught error of a cell is shown: the frames of cells only, with their source lines.
# Part of kernel.py, which loads it into its process at the first error of a session; `kernel`
# is that driver.
import sys

OWN = kernel.start.__code__.co_filename.rpartition("/")[0] + "/"


def tenant_traceback(tb):
    """The part of a traceback that begins in a cell; nothing if it never reached one."""
    while tb is not None and tb.tb_frame.f_code.co_filename not in kernel.sources:
        tb = tb.tb_next
    return tb


def drop_driver_frames(error):
    """Takes frames of this driver (its signal handler, display) out of an error and those it came from."""
    own = (OWN,)
    if "shell" in kernel.parts:  # the ways of a magic through IPython are not the tenant's either
        own = (OWN, *(sys.modules[name].__path__[0] + "/" for name in ("IPython", "traitlets")))
    todo = [error]
    while todo:
        one = todo.pop()
        if one is not None:
            one.stack[:] = [frame for frame in one.stack if not frame.filename.startswith(own)]
            todo += [one.__cause__, one.__context__]


def format_error(error):
    try:
        traceback = kernel.import_stdlib("traceback")
        kernel.publish_sources(sys.modules["linecache"])
        tb = tenant_traceback(error.__traceback__)
        if type(error).__name__ == "UsageError" and "shell" in kernel.parts:
            tb = None  # of a magic: says all in its one line
        if tb is None and error.__cause__ is None and error.__context__ is None:
            lines = traceback.format_exception_only(error)
        else:
            whole = traceback.TracebackException(type(error), error, tb, compact=True)
            drop_driver_frames(whole)
            lines = whole.format()
        return "".join(lines).rstrip("\n").split("\n")
    except BaseException:  # a __str__ or __class__ that fights back
        return ["%s: <the error's text could not be made>" % type(error).__name__]


def text_of(error):
    try:
        return str(error)
    except BaseException:
        return "<the error's text could not be made>"


def report(error):
    """Writes an uncaught error to stderr and as a frame. Returns the exit status a script would have."""
    kernel.flush_streams()
    if isinstance(error, SystemExit):
        code = error.code
        if code is None or (isinstance(code, int) and code == 0):
            return 0
        if not isinstance(code, int):
            write_error([text_of(error)])
        kernel.send_error("SystemExit", text_of(error), ["SystemExit: " + text_of(error)])
        return code & 0xFF if isinstance(code, int) else 1
    lines = format_error(error)
    write_error(lines)
    kernel.send_error(type(error).__name__, text_of(error), lines)
    return 1


def write_error(lines):
    try:
        kernel.ERR.write("\n".join(lines) + "\n")
        kernel.ERR.flush()
    except BaseException:
        pass
