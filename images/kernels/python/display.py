# Rich results of the Python kernel: MIME bundles from `_repr_*_` methods, `display`, open
# matplotlib figures, and IPython's own display functions pointed here. Part of kernel.py,
# which loads it into its process when a value first needs it; `kernel` is that driver.
import binascii
import builtins
import sys

# In the order in which a bundle lists them, after text/plain.
METHODS = (
    ("_repr_html_", "text/html"),
    ("_repr_markdown_", "text/markdown"),
    ("_repr_latex_", "text/latex"),
    ("_repr_svg_", "image/svg+xml"),
    ("_repr_png_", "image/png"),
    ("_repr_jpeg_", "image/jpeg"),
    ("_repr_pdf_", "application/pdf"),
    ("_repr_json_", "application/json"),
    ("_repr_javascript_", "application/javascript"),
)


def find_method(value, name):
    if isinstance(value, type):
        return None  # the class of displayable things is not one of them
    try:
        if getattr(value, "_codespace_canary_no_object_has_this_", None) is not None:
            return None  # a mock that answers to every name
        method = getattr(value, name, None)
    except Exception:
        return None
    return method if callable(method) else None


def encode(mime, data):
    """The text a bundle carries: base64 for bytes, JSON text for JSON types, the rest as it is."""
    if isinstance(data, (bytes, bytearray)):
        if mime.startswith("text/") or mime == "image/svg+xml":
            return bytes(data).decode("utf-8", "backslashreplace")
        return binascii.b2a_base64(data, newline=False).decode()
    if mime == "application/json" or mime.endswith("+json"):
        if not isinstance(data, str):
            return kernel.import_stdlib("json").dumps(data, default=str)
        return data
    return data if isinstance(data, str) else str(data)


def without_metadata(data):
    return data[0] if isinstance(data, tuple) and len(data) == 2 else data


def plain(value):
    """A value's text, by IPython's printer where the image has it, so that it breaks long lines as a notebook does."""
    try:
        if "shell" in kernel.parts:
            printer = kernel.parts["shell"].shell.display_formatter.formatters["text/plain"]
            return printer.__call__.__wrapped__(printer, value)  # past what turns an error into a printed one
        if type(value) not in kernel.PLAIN and find_printer() is not None:
            return find_printer().pretty(value, max_width=79)
    except Exception:
        pass  # the value's own error comes again below, one of the printer does not
    return repr(value)


def find_printer():
    """IPython's printer alone: one file of it, which leans on no other, is loaded in a hundredth of the time."""
    global printer
    if printer is not False:
        return printer
    printer = None
    for path in sys.path:
        name = path + "/IPython/lib/pretty.py"
        try:
            kernel.posix.stat(name)
        except OSError:
            continue
        external = kernel.import_stdlib("importlib._bootstrap_external")
        loader = external.SourceFileLoader("IPython.lib.pretty", name)
        module = type(sys)("codespace_pretty")
        module.__file__ = name
        code = loader.get_code("IPython.lib.pretty")
        stand_in = type(sys)("stand_in")
        stand_in.undoc, stand_in.PYPY = (lambda function: function), False

        def import_for_printer(name, *args):
            return stand_in if name.startswith("IPython.utils.") else kernel.import_stdlib(name)

        module.__builtins__ = {**__builtins__, "__import__": import_for_printer}
        exec(code, module.__dict__)
        printer = module
        break
    return printer


printer = False  # not looked for yet


def registered(shell, value):
    """Forms that libraries registered with IPython for types they do not own."""
    forms = {}
    for mime, formatter in shell.display_formatter.formatters.items():
        if mime == "text/plain":
            continue
        try:
            function = formatter.lookup(value)
        except KeyError:
            continue
        item = without_metadata(function(value))
        if item is not None:
            forms[mime] = encode(mime, item)
    return forms


def is_figure(value):
    module = sys.modules.get("matplotlib.figure")
    return module is not None and isinstance(value, module.Figure)


def figure_png(figure):
    io = kernel.import_stdlib("io")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    return encode("image/png", buffer.getvalue())


def figure_forms(figure):
    """A picture in png, or in the formats that %config InlineBackend asked for."""
    config = sys.modules.get("matplotlib_inline.config")
    formats = config.InlineBackend.instance().figure_formats if config is not None and "shell" in kernel.parts else {"png"}
    if formats == {"png"}:
        return {"image/png": figure_png(figure)}
    tools = sys.modules["IPython.core.pylabtools"]
    forms = {}
    for name in sorted(formats):
        mime = {"svg": "image/svg+xml", "pdf": "application/pdf", "jpg": "image/jpeg", "jpeg": "image/jpeg"}.get(name, "image/png")
        data = tools.retina_figure(figure)[0] if name in ("retina", "png2x") else tools.print_figure(figure, name)
        forms[mime] = encode(mime, data)
    return forms


def bundle(value, is_main=False):
    """Every form a value offers, text/plain first. An error in one form is an error of the run."""
    own = find_method(value, "_ipython_display_")
    if own is not None:
        own()
        return {}
    data = {"text/plain": plain(value)}
    if "shell" in kernel.parts and type(value) not in kernel.PLAIN:
        data.update(registered(kernel.parts["shell"].shell, value))
    method = find_method(value, "_repr_mimebundle_")
    if method is not None:
        try:
            own = without_metadata(method(include=None, exclude=None))
        except TypeError:
            own = without_metadata(method())
        if own:
            data.update((mime, encode(mime, item)) for mime, item in own.items() if item is not None)
    for name, mime in METHODS:
        if mime in data:
            continue
        method = find_method(value, name)
        item = without_metadata(method()) if method is not None else None
        if item is not None:
            data[mime] = encode(mime, item)
    if is_figure(value):
        if len(data) == 1:
            data.update(figure_forms(value))
        if is_main and "matplotlib.pyplot" in sys.modules:
            sys.modules["matplotlib.pyplot"].close(value)  # or it would come twice
    return data


class DisplayHandle:
    """What display(..., display_id=...) returns. A changed display is a further result."""

    def __init__(self, display_id):
        self.display_id = display_id

    def display(self, value, **options):
        display(value, **options)

    update = display

    def __repr__(self):
        return "<DisplayHandle display_id=%s>" % self.display_id


def display(*objects, raw=False, display_id=None, **options):
    for value in objects:
        publish_display_data(value if raw else bundle(value))
    if display_id is not None:
        return DisplayHandle(display_id if isinstance(display_id, str) else "display")
    return None


def send(data):
    if data:
        kernel.flush_streams()  # text printed before a picture is read before it
        kernel.send_result(False, {mime: encode(mime, item) for mime, item in data.items()})


def publish_display_data(data, metadata=None, source=None, **options):
    if "shell" in kernel.parts:
        kernel.parts["shell"].shell.display_pub.publish(data)  # which %%capture puts its own in the place of
    else:
        send(data)


def update_display(value, *, display_id=None, **options):
    display(value, **options)


def clear_output(wait=False):
    """What was shown is already on its way; there is nothing to take back."""


# ---- matplotlib and IPython -----------------------------------------------------------

def flush_figures():
    """Open figures become results and are closed, as in a notebook. Called after a run and by show()."""
    pyplot = sys.modules["matplotlib.pyplot"]
    for number in pyplot.get_fignums():
        figure = pyplot.figure(number)
        try:
            if figure.axes or figure.lines or figure.images or figure.texts:
                publish_display_data(bundle(figure))
        finally:
            pyplot.close(figure)


def show(*args, **options):
    """Replaces pyplot.show: there is no window, the figures go to the results."""
    flush_figures()


def after_import(name, module):
    if name == "matplotlib.pyplot":
        module.show = show
        if "shell" in kernel.parts:
            kernel.parts["shell"].add_inline_settings()
        return
    # IPython without a shell prints the repr; here its displays are results.
    module.display = display
    module.publish_display_data = publish_display_data
    module.update_display = update_display
    module.clear_output = clear_output
    module.DisplayHandle = DisplayHandle
