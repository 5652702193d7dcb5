# IPython's shell in the service of the Python kernel: it turns magics, `!` and `?` into Python,
# runs them and formats values; cells, errors and results stay with the driver. Part of kernel.py,
# which makes it when a cell first needs it and IPython is installed; a zygote with libraries
# makes it before it forks. Holds nothing that needs a home directory or a thread.
import ast
import builtins
import os
import subprocess
import sys

from IPython.core import interactiveshell, page
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import ExecutionInfo, ExecutionResult
from IPython.core.history import HistoryManager
from IPython.utils.text import LSString, SList
from traitlets import Any, Type

shell = None


class Profile:
    """Where IPython keeps what outlives a session. Asked for late: a zygote has no home."""

    @property
    def location(self):
        base = os.environ.get("IPYTHONDIR") or os.path.join(os.path.expanduser("~"), ".ipython")
        return os.path.join(base, "profile_default")


class LateDatabase:
    """IPython's store of bookmarks and the like, which makes its directory when first used."""

    def __init__(self, root):
        self.store = None

    def open(self):
        if self.store is None:
            from pickleshare import PickleShareDB
            self.store = PickleShareDB(os.path.join(shell.profile_dir.location, "db"))
        return self.store

    def __getitem__(self, key):
        return self.open()[key]

    def __setitem__(self, key, value):
        self.open()[key] = value

    def __delitem__(self, key):
        del self.open()[key]

    def __contains__(self, key):
        return key in self.open()

    def __getattr__(self, name):
        return getattr(self.open(), name)


class Publisher(DisplayPublisher):
    def publish(self, data, metadata=None, source=None, **options):
        kernel.load_part("display").send(data)

    def clear_output(self, wait=False):
        kernel.load_part("display").clear_output(wait)


class Hook(DisplayHook):
    """For values of code that a magic runs. The cell's own last value is the driver's to send."""

    def write_output_prompt(self):
        pass

    def write_format_data(self, format_dict, md_dict=None):
        kernel.load_part("display").send(format_dict)

    def finish_displayhook(self):
        pass


# Libraries look at this name to learn whether their reader is shown MIME types. It is.
class ZMQInteractiveShell(interactiveshell.InteractiveShell):
    displayhook_class = Type(Hook)
    display_pub_class = Type(Publisher)
    profile_dir = Any()

    def init_ipython_dir(self, ipython_dir):
        pass

    def init_profile_dir(self, profile_dir):
        self.profile_dir = Profile()

    def init_history(self):
        # In memory: no database, no thread that writes to it.
        self.history_manager = HistoryManager(shell=self, parent=self, enabled=False)
        self.configurables.append(self.history_manager)

    def init_sys_modules(self):
        pass  # __main__ is the driver's affair

    def init_hooks(self):
        super().init_hooks()
        self.set_hook("show_in_pager", page.as_hook(page.display_page), 90)

    def enable_matplotlib(self, gui=None):
        """Figures are shown by the driver whatever is asked for: there is no window."""
        import matplotlib.pyplot  # noqa: F401
        return gui or "inline", "agg"

    def system(self, cmd):
        """On the kernel's own descriptors, so that its output is where other programs' is."""
        kernel.flush_streams()
        command = self.var_expand(cmd, depth=1)
        status = subprocess.call(command, shell=True, executable=os.environ.get("SHELL"))
        self.user_ns["_exit_code"] = status

    def getoutput(self, cmd, split=True, depth=0):
        command = self.var_expand(cmd, depth=depth + 1)
        answer = subprocess.run(command, shell=True, executable=os.environ.get("SHELL"), stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, encoding="utf-8", errors="replace").stdout
        return SList(answer.splitlines()) if split else LSString(answer)

    def showtraceback(self, exc_tuple=None, **options):
        """An error in code that a magic ran is the error of the run."""
        kernel.late_error = self._get_exc_info(exc_tuple)[1]

    def showsyntaxerror(self, filename=None, running_compiled_code=False):
        self.showtraceback()


def create():
    """The one shell of this process, over the tenant's own namespace and with the history so far."""
    global shell
    database = interactiveshell.PickleShareDB
    interactiveshell.PickleShareDB = LateDatabase
    try:
        shell = ZMQInteractiveShell.instance(user_module=kernel.tenant, colors="NoColor", autoindent=False)
    finally:
        interactiveshell.PickleShareDB = database
    for name in ("exit", "quit"):
        shell.user_ns.pop(name, None)  # the driver's take a status
    shell.execution_count = kernel.current
    history = shell.history_manager
    history.input_hist_parsed[:] = history.input_hist_raw[:] = kernel.inputs
    history.output_hist.update(kernel.outputs)
    names = vars(builtins)
    for name in [n for n in names if n in ("In", "Out") or n.strip("_") == "" or n[:1] == "_" and n.strip("_i").isdigit()]:
        value = names.pop(name)
        if name not in ("In", "Out"):
            shell.user_ns[name] = value
    hook = shell.displayhook
    hook._, hook.__, hook.___ = (shell.user_ns[name] for name in ("_", "__", "___"))
    if "matplotlib.pyplot" in sys.modules:
        add_inline_settings()
    return shell


def add_inline_settings():
    """What `%config InlineBackend` sets; display.py reads it. Loads matplotlib, so not before pyplot is there."""
    try:
        from matplotlib_inline.config import InlineBackend
    except ImportError:
        return
    shell.configurables.append(InlineBackend.instance(parent=shell))


# ---- around a cell, called by the driver ----------------------------------------------

def remember_input(count, source, text):
    shell.execution_count = count
    shell.history_manager.store_inputs(count, text, source)


def remember_output(value):
    shell.displayhook.check_for_underscore()
    shell.displayhook.update_user_ns(value)


def interactive(body):
    """The setting `ast_node_interactivity`: which expressions of a cell are shown beside the last."""
    setting = shell.ast_node_interactivity
    if setting == "none":
        body = [*body, ast.Pass()] if body else body
    elif setting == "last_expr_or_assign" and body and isinstance(body[-1], (ast.Assign, ast.AnnAssign, ast.AugAssign)):
        target = body[-1].targets[0] if isinstance(body[-1], ast.Assign) else body[-1].target
        if isinstance(target, ast.Name):
            name = ast.copy_location(ast.Name(target.id, ast.Load()), body[-1])
            body = [*body, ast.copy_location(ast.Expr(name), body[-1])]
    elif setting == "all":
        body = [*map(displayed, body[:-1]), *body[-1:]]
    return body


def displayed(node):
    if not isinstance(node, ast.Expr):
        return node
    call = ast.parse("get_ipython().displayhook(0)", mode="eval").body
    call.args = [node.value]
    for part in ast.walk(call.func):
        ast.copy_location(part, node)
    return ast.copy_location(ast.Expr(ast.copy_location(call, node)), node)


def before_cell(source):
    shell.events.trigger("pre_execute")
    shell.events.trigger("pre_run_cell", ExecutionInfo(source, True, False, True, None))


def after_cell(failure):
    result = ExecutionResult(None)
    result.execution_count, result.error_in_exec = kernel.current, failure
    shell.events.trigger("post_execute")
    shell.events.trigger("post_run_cell", result)
