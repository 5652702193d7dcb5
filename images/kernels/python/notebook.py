# What cells may hold beyond Python: magics, `!command`, `help?`, prompts and an indentation to
# take off. Part of kernel.py, which loads it into its process when a cell does not parse;
# `kernel` is that driver. IPython does the work; it is loaded only for a cell that wants it.
import sys

# The magics people type without their `%`. All others need it until IPython is loaded.
BARE = {"alias", "cat", "cd", "clear", "conda", "cp", "dhist", "dirs", "env", "hist", "history", "ldir", "less", "lf", "lk", "ll", "ls",
        "lsmagic", "lx", "magic", "man", "mamba", "mkdir", "more", "mv", "pdoc", "pfile", "pinfo", "pip", "popd", "prun", "psearch", "psource",
        "pushd", "pwd", "pycat", "quickref", "rm", "rmdir", "run", "set_env", "sx", "system", "time", "timeit", "who", "who_ls", "whos",
        "writefile", "xmode"}
MISSING = ("%s is not Python: it is for IPython, which this image does not have. "
           "Use Python for it (subprocess.run for a command), or install IPython with `python3 -m pip install --user ipython`.")


def first_special(source):
    """The first line that wants IPython, or None."""
    lines = source.strip().split("\n")
    for line in lines:
        text = line.strip()
        value = text.partition("=")[2].lstrip()
        if text[:1] in ("%", "!", "?") or text.endswith("?") or value[:1] in ("%", "!"):
            return text
    first = lines[0].lstrip()
    if first.startswith((">>> ", "In [")):
        return first
    word = first.split(None, 1)[0] if first else ""
    if len(lines) == 1 and (first[0] in "/,;" or is_magic(word)):
        return first
    return None


def is_magic(word):
    if "shell" in kernel.parts:
        return kernel.parts["shell"].shell.find_line_magic(word) is not None
    return word in BARE


def as_python(source):
    """The cell as Python, or None if it is none of what is known here."""
    special = first_special(source)
    if special is not None:
        shell = kernel.find_shell()
        if shell is not None:
            text = shell.transform_cell(source)
            return text if text.strip() != source.strip() else None
        if special[0] in "%!?" or special.endswith("?") or "=" in special:
            raise ModuleNotFoundError(MISSING % (special if len(special) <= 80 else special[:77] + "..."), name="IPython")
    shifted = kernel.import_stdlib("textwrap").dedent(source)
    return shifted if shifted != source else None


def bare_magic(source, name):
    """`ls -l` is an expression to Python, whose first name is unknown to it. As Python, or None."""
    line = source.strip()
    if "\n" in line or not line.startswith(name) or not is_magic(line.split(None, 1)[0]):
        return None
    shell = kernel.find_shell()
    text = shell.transform_cell(line) if shell is not None else line
    return text if text.strip() != line else None
