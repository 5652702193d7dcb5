"""The JavaScript driver: REPL semantics, modules, exits and interrupts as Node.js people expect them."""
import json
import time

import pytest
from driver import PATIENCE_S, READY, KernelDied


def test_declarations_can_be_repeated(javascript):
    assert javascript.run("const a = 1; let b = 1; class C {}; function f() {}").error is None
    assert javascript.run("const a = 2; let b = 3; class C {}; function f() {}; a + b").main == "5"


def test_values_look_as_in_nodes_prompt(javascript):
    for code, text in [("'s'", "'s'"), ("-0", "-0"), ("10n", "10n"), ("null", "null"), ("NaN", "NaN"), ("Symbol('q')", "Symbol(q)"),
                       ("({a: 1, b: [1, 2]})", "{ a: 1, b: [ 1, 2 ] }"), ("new Map([[1, 2]])", "Map(1) { 1 => 2 }"),
                       ("(function named() {})", "[Function: named]")]:
        assert javascript.run(code).main == text
    assert javascript.run("undefined").results == []
    assert javascript.run("'use strict'; var q = 1;").results == []


def test_console_is_in_order_and_synchronous(javascript):
    outcome = javascript.run("for (let i = 0; i < 1000; i++) console.log(i); console.warn('w'); console.table([[1]])")
    assert outcome.stdout.startswith(b"0\n1\n2\n") and b"999\n" in outcome.stdout and b"(index)" in outcome.stdout
    assert outcome.stderr == b"w\n"


def test_a_promise_at_the_end_is_awaited(javascript):
    """A cell that ends in a call of an async function is not over before that function is."""
    code = "async function main() { await new Promise(r => setTimeout(r, 10)); console.log('inside'); return 5 }\nmain()"
    outcome = javascript.run(code)
    assert (outcome.stdout, outcome.main) == (b"inside\n", "5")
    outcome = javascript.run("(async () => { throw new TypeError('later') })()")
    assert outcome.error[:2] == ("TypeError", "later")


def test_unhandled_rejections_are_the_runs_error(javascript):
    assert javascript.run("Promise.reject(new Error('lost')); 1").error[:2] == ("Error", "lost")
    assert javascript.run("1").main == "1"


def test_an_error_in_a_timer_is_the_runs_error(javascript):
    outcome = javascript.run("setTimeout(() => { throw new RangeError('late') }, 5); await new Promise(() => {})")
    assert outcome.error[:2] == ("RangeError", "late")
    assert javascript.run("1").main == "1"


def test_anything_can_be_thrown(javascript):
    for thrown in ("'text'", "42", "null", "undefined", "{ a: 1 }", "Object.create(null)"):
        outcome = javascript.run(f"throw {thrown}")
        assert outcome.error is not None and outcome.stderr.startswith(b"Uncaught"), thrown


def test_stacks_have_only_the_tenants_frames(javascript):
    outcome = javascript.run("function f() { throw new Error('x') }\nf()")
    assert outcome.error[2] == ["Error: x", "    at f (<cell-1>:1:22)", "    at <cell-1>:2:1"]
    assert javascript.run("try { f() } catch (e) { console.log(e.stack) }").stdout == \
        b"Error: x\n    at f (<cell-1>:1:22)\n    at <cell-2>:1:7\n"


def test_a_syntax_error_is_shown_at_its_place(javascript):
    assert javascript.run("let ok = 1;\nlet x = ;").error[2] == [
        "<cell-1>:2", "let x = ;", "        ^", "", "SyntaxError: Unexpected token ';'"]


def test_require_and_import_work_in_all_forms(javascript):
    here = javascript.cwd
    (here / "esm.mjs").write_text("export default 7; export const named = 8; export const url = import.meta.url")
    file = json.dumps(str(here / "esm.mjs"))
    assert javascript.run("const fs = require('fs'), p = require('node:path'); [typeof fs.readFileSync, typeof p.join]").main == \
        "[ 'function', 'function' ]"
    assert javascript.run("const m = await import('fs'); typeof m.readFileSync").main == "'function'"
    assert javascript.run("import('os').then(m => typeof m.cpus)").main == "'function'"
    assert javascript.run(f"import d, {{ named as n }} from {file};\nimport * as all from {file}\nimport 'fs'\n[d, n, all.named]").main == \
        "[ 7, 8, 8 ]"
    assert javascript.run("d + n // import x from 'y'").main == "15"
    assert javascript.run("'import a from b'").main == "'import a from b'"
    assert javascript.run("export const e = 5; export default function g() { return e }\ng()").main == "5"
    assert javascript.run("import x from 'not-there'").error[0] == "Error"


def test_module_globals_are_there(javascript):
    assert javascript.run("[typeof require, typeof module, typeof exports, __dirname, require.main === module]").main == \
        "[ 'function', 'object', 'object', '/workspace', true ]"
    assert javascript.run("process.argv.length").main == "1"


def test_an_exit_cannot_be_caught(javascript):
    outcome = javascript.run("try { process.exit(0) } catch (e) { console.log('caught') } finally { console.log('finally') }")
    assert (outcome.stdout, outcome.error) == (b"", None)
    outcome = javascript.run("async function m() { await null; await new Promise(r => setTimeout(r, 5)); process.exit(4) }\n"
                             "m().catch(e => { console.log('caught', e) })")
    assert (outcome.stdout, outcome.error[:2]) == (b"", ("SystemExit", "4"))
    assert javascript.run("console.log('on')").stdout == b"on\n"


def test_timers_of_an_interrupted_run_are_gone(javascript):
    """What ran before the interrupted run goes on, what the run itself started does not."""
    javascript.run("globalThis.early = 0; globalThis.late = 0; setInterval(() => { early++ }, 5); undefined")
    javascript.send("console.log('begun'); setInterval(() => { late++ }, 5); await new Promise(r => setTimeout(r, 60000))")
    javascript.wait_for_output(b"begun")
    javascript.interrupt()
    assert javascript.finish().error[0] == "KeyboardInterrupt"
    outcome = javascript.run("const e = early, l = late; await new Promise(r => setTimeout(r, 50)); [early > e, late === l]")
    assert outcome.main == "[ true, true ]"


def test_what_cannot_be_stopped_takes_the_kernel_along(javascript):
    """A server opened by an interrupted run would go on serving: the driver ends without `done`."""
    javascript.send("const s = require('net').createServer().listen(0, '127.0.0.1', () => console.log('begun'));"
                    "await new Promise(() => {})")
    javascript.wait_for_output(b"begun")
    javascript.interrupt()
    with pytest.raises(KernelDied):
        javascript.finish()
    assert javascript.last.error is None or javascript.last.error[0] == "KeyboardInterrupt"
    assert javascript.wait_exit() == 1


def test_a_background_server_goes_on_between_runs(javascript):
    javascript.run("globalThis.server = require('http').createServer((q, r) => r.end('served')).listen(0, '127.0.0.1');"
                   "await new Promise(r => server.on('listening', r))")
    code = ("await new Promise((ok, bad) => require('http').get({port: server.address().port, host: '127.0.0.1'}, "
            "r => { let t = ''; r.on('data', d => t += d); r.on('end', () => ok(t)) }).on('error', bad))")
    assert javascript.run(code).main == "'served'"


def test_display_takes_mime_bundles(javascript):
    outcome = javascript.run("display({'text/html': '<b>', 'image/png': Buffer.from('x'), 'application/json': {a: [1]}});"
                             "display({a: 1})")
    assert outcome.results == [(False, {"text/html": "<b>", "image/png": "eA==", "application/json": '{"a":[1]}'}),
                               (False, {"text/plain": "{ a: 1 }"})]


def test_values_may_bring_their_own_forms(javascript):
    outcome = javascript.run("({ [Symbol.for('Jupyter.display')]() { return { 'text/plain': 'p', 'text/html': '<p>' } } })")
    assert outcome.results == [(True, {"text/plain": "p", "text/html": "<p>"})]


@pytest.mark.parametrize("damage", [
    "console.log = null; globalThis.console = null",
    "process.removeAllListeners(); process.exit = null; process.on = null; process.on = require('events').prototype.on",
    "JSON.stringify = null; globalThis.setTimeout = globalThis.setImmediate = globalThis.Buffer = null",
    "delete globalThis.require; delete globalThis.display",
    "Error.prepareStackTrace = () => { throw 1 }; Error.stackTraceLimit = 0",
    "require('fs').closeSync = null; require('util').inspect = null",
])
def test_damage_does_not_end_the_kernel(javascript, damage):
    javascript.run(damage)
    assert javascript.run("6 * 7").main == "42"


def test_lost_output_descriptors_end_the_kernel_after_the_run(javascript):
    """Node cannot put a descriptor back, so the next run gets a new kernel and is told."""
    outcome = javascript.run("console.log('before'); require('fs').closeSync(1)")
    assert outcome.stdout == b"before\n"
    assert javascript.wait_exit() == 1


def test_a_first_run_compiles_nothing_but_its_cell(start, tmp_path):
    """V8 compiles a function when it is first called; a kernel that was started ahead has called all of a run's."""
    log = tmp_path / "v8.log"
    kernel = start("javascript", options=["--log-function-events", "--no-logfile-per-isolate", f"--logfile={log}"])

    def compiled():
        return [line for line in log.read_text(errors="replace").splitlines() if line.startswith("function,interpreter")]

    assert kernel.read_frame()[0] == READY
    kernel.configure({})  # init sends it to a kernel that is started ahead
    end = time.monotonic() + PATIENCE_S
    while not any(line.endswith(",readUInt32LE") for line in compiled()):
        assert time.monotonic() < end
        time.sleep(0.1)  # V8 tells nobody that it has written
    before = compiled()
    assert kernel.run("console.log('hello')").stdout == b"hello\n"
    own = [line for line in compiled()[len(before):] if not line.startswith("function,interpreter,")]
    assert own == []
