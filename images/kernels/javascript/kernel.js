// The JavaScript kernel driver: one Node.js process that keeps its context between runs and
// speaks the frames of ../PROTOCOL.md on descriptor 3. Runs as the session's user. Cells are
// evaluated by V8's own REPL mode (through the inspector of this same process), which has
// top-level await and redeclaration of const, let and class built in.
// Only what every run needs is here; modules.js rewrites `import` and is loaded on need.
'use strict';

const fs = require('fs');
const util = require('util');
const net = require('net');
const inspector = require('inspector');
const { Buffer } = require('buffer');
const { Module } = require('module');

const EXECUTE = 1, CONFIGURE = 2, READY = 16, RESULT = 17, ERROR = 18, DONE = 19;
const MAX_PAYLOAD = 4 * 1024 * 1024;
const MAX_VALUE = 64 * 1024;  // of an error's text; the whole of it went to stderr
const CONTROL = 3;
const REHEARSALS = 3;  // V8 makes machine code of a regular expression for its second use
const WORKSPACE = '/workspace';

// Kept before the tenant's code runs: it may replace any of these.
const inspect = util.inspect;
const { isPromise, isNativeError } = util.types;
const reallyExit = process.reallyExit.bind(process);
const setImmediate = globalThis.setImmediate;
const clearTimeout = globalThis.clearTimeout;
const setTimeout = globalThis.setTimeout;
const jupyterDisplay = Symbol.for('Jupyter.display');

const session = new inspector.Session();
const exitMark = Symbol('process.exit was called');

let run = null;          // the current run: {count, ended, exitStatus, timers, resources}
let onStack = false;     // the synchronous part of its code is on the stack
let rehearsals = 0;      // to come before `ready`: runs that nobody hears
let rehearsed = null;    // called at the end of each
let muted = false;       // in those, and after process.exit: what the cell writes goes nowhere

// ---- frames ----------------------------------------------------------------------------

function writeAll(fd, data) {
  let at = 0;
  while (at < data.length) {
    try {
      at += fs.writeSync(fd, data, at);
    } catch (error) {
      if (error.code !== 'EAGAIN') return;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);  // init is still reading
    }
  }
}

function send(type, payload = Buffer.alloc(0)) {
  const header = Buffer.alloc(8);
  header.writeUInt32LE(type, 0);
  header.writeUInt32LE(payload.length, 4);
  const frame = Buffer.concat([header, payload]);
  if (rehearsals > 0) fs.writeSync(1, frame, 0, 0);  // the way of every frame, of no bytes
  else writeAll(CONTROL, frame);
}

function u32(number) {
  const raw = Buffer.alloc(4);
  raw.writeUInt32LE(number);
  return raw;
}

function field(text) {
  const raw = Buffer.isBuffer(text) ? text : Buffer.from(text, 'utf8');
  return Buffer.concat([u32(raw.length), raw]);
}

function sendResult(isMain, bundle) {
  const kept = new Map();
  const notes = [];
  let room = MAX_PAYLOAD - 8192;
  for (const [mime, text] of Object.entries(bundle)) {
    const raw = Buffer.from(text, 'utf8');
    if (raw.length + mime.length + 8 <= room) {
      kept.set(mime, raw);
      room -= raw.length + mime.length + 8;
    } else {
      notes.push(`[${mime} left out: ${raw.length} bytes do not fit into a result of 4 MiB; ` +
                 'write it to a file in /workspace and read that]');
    }
  }
  if (notes.length) {
    const plain = kept.get('text/plain');
    kept.set('text/plain', Buffer.from((plain ? plain + '\n' : '') + notes.join('\n')));
  }
  if (!kept.size) return;
  const parts = [Buffer.from([isMain ? 1 : 0]), u32(kept.size)];
  for (const [mime, raw] of kept) parts.push(field(mime), field(raw));
  send(RESULT, Buffer.concat(parts));
}

function sendError(name, value, lines) {
  let raw = Buffer.from(value);
  if (raw.length > MAX_VALUE)
    raw = Buffer.concat([raw.subarray(0, MAX_VALUE), Buffer.from(` [cut: ${raw.length} bytes in all]`)]);
  if (lines.length > 2000 || lines.reduce((n, line) => n + line.length, 0) > MAX_PAYLOAD / 8)
    lines = [...lines.slice(0, 1000).map((line) => line.slice(0, 500)),
             `[${lines.length} lines in all, the rest is on stderr]`];
  send(ERROR, Buffer.concat([field(name), field(raw), u32(lines.length), ...lines.map(field)]));
}

// ---- results ---------------------------------------------------------------------------

/** As Node's own prompt shows a value, but long strings whole. */
const show = (value) => inspect(value, { maxStringLength: Infinity });

function encode(mime, data) {
  if (mime === 'application/json' || mime.endsWith('+json'))
    return typeof data === 'string' ? data : JSON.stringify(data);
  if (data instanceof Uint8Array) {
    const raw = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    return mime.startsWith('text/') || mime === 'image/svg+xml' ? raw.toString('utf8') : raw.toString('base64');
  }
  return String(data);
}

function isBundle(value) {
  if (value === null || typeof value !== 'object') return false;
  const keys = Object.keys(value);
  return keys.length > 0 && keys.every((key) => /^[a-z]+\/[a-z0-9.+-]+$/i.test(key));
}

async function bundleOf(value) {
  const method = value !== null && (typeof value === 'object' || typeof value === 'function')
    ? value[jupyterDisplay] : undefined;
  if (typeof method !== 'function') return { 'text/plain': show(value) };
  const own = await method.call(value);
  return Object.fromEntries(Object.entries(own).map(([mime, data]) => [mime, encode(mime, data)]));
}

/** Shows values as results of this run, in order. An object whose keys are MIME types is shown as those. */
function display(...values) {
  for (const value of values) {
    if (isBundle(value)) {
      sendResult(false, Object.fromEntries(Object.entries(value).map(([mime, data]) => [mime, encode(mime, data)])));
    } else if (typeof value?.[jupyterDisplay] === 'function') {
      const current = run;
      current?.waits.push(bundleOf(value).then((bundle) => { if (run === current) sendResult(false, bundle); }));
    } else {
      sendResult(false, { 'text/plain': show(value) });
    }
  }
}

// ---- errors ----------------------------------------------------------------------------

/** Frames of this driver, and what is under them, are not the tenant's business. */
function prepareStackTrace(error, frames) {
  const end = frames.findIndex((frame) => {
    const file = frame.getFileName();
    return file === __filename || (file === 'node:inspector' && frame.getFunctionName() === 'post');
  });
  const own = end < 0 ? frames : frames.slice(0, end);
  let head;
  try {
    head = Error.prototype.toString.call(error);
  } catch {
    head = '<error>';
  }
  return own.length ? `${head}\n    at ${own.join('\n    at ')}` : head;
}

function textOf(error) {
  try {
    return isNativeError(error) ? String(error.message) : typeof error === 'string' ? error : inspect(error);
  } catch {
    return "<the error's text could not be made>";
  }
}

function nameOf(error) {
  try {
    return isNativeError(error) ? String(error.name || 'Error') : 'Error';
  } catch {
    return 'Error';
  }
}

/** Where a syntax error is, as node shows it for a script. */
function pointAt(details) {
  if (details?.lineNumber === undefined || !run) return '';
  const line = run.source.split('\n')[details.lineNumber];
  if (line === undefined || line.length > 1000) return '';
  return `<cell-${run.count}>:${details.lineNumber + 1}\n${line}\n${' '.repeat(details.columnNumber)}^\n\n`;
}

function fail(error, details) {
  if (run === null) return;
  let text;
  try {
    // inspect puts an error without frames (a syntax error of the cell) into brackets.
    const bare = isNativeError(error) && !/\n {4}at /.test(error.stack) && Object.keys(error).length === 0;
    text = bare ? String(error.stack) : isNativeError(error) ? inspect(error) : `Uncaught ${inspect(error)}`;
  } catch {
    text = `Uncaught ${textOf(error)}`;
  }
  if (isNativeError(error) && nameOf(error) === 'SyntaxError') text = pointAt(details) + text;
  writeAll(2, Buffer.from(text + '\n'));
  sendError(nameOf(error), textOf(error), text.split('\n'));
  finish();
}

// ---- a run -----------------------------------------------------------------------------

function post(method, params) {
  let outcome = null;
  session.post(method, params, (error, answer) => { outcome = { error, answer }; });
  return outcome;
}

/** The value behind an inspector handle: `receive` is called with it, inside this context. */
let receiverId;
function valueOf(remote) {
  if (remote.type === 'undefined') return undefined;
  let received;
  receive = (value) => { received = value; };
  const argument = remote.objectId !== undefined ? { objectId: remote.objectId }
    : remote.unserializableValue !== undefined ? { unserializableValue: remote.unserializableValue }
      : { value: remote.value };
  post('Runtime.callFunctionOn', {
    objectId: receiverId, functionDeclaration: 'function (value) { this.receive(value); }', arguments: [argument],
  });
  return received;
}
let receive = () => {};

function evaluate(source, current) {
  const params = {
    expression: `${source}\n//# sourceURL=<cell-${current.count}>`,
    replMode: true, awaitPromise: true, objectGroup: 'run', silent: true,
  };
  session.post('Runtime.evaluate', params, (error, answer) => {
    if (run !== current || current.ended) return;
    if (error) return;  // "Execution was terminated": process.exit, seen to by start()
    if (answer.exceptionDetails) {
      const thrown = valueOf(answer.exceptionDetails.exception ?? { type: 'undefined' });
      if (thrown !== exitMark) setImmediate(() => { if (run === current) fail(thrown, answer.exceptionDetails); });
      return;
    }
    const value = valueOf(answer.result);
    // Async, so that rejections nobody handled are seen before the run ends.
    complete(current, value).catch((failure) => {
      if (run === current && failure !== exitMark) fail(failure);
    });
  });
}

async function complete(current, value) {
  // A cell that ends in a call of an async function is not over before that function is.
  if (isPromise(value)) value = await value;
  await Promise.all(current.waits);
  if (run !== current) return;
  if (value !== undefined && !(value === 'use strict' && /^\s*(['"])use strict\1/.test(current.source)))
    sendResult(true, await bundleOf(value));
  setImmediate(() => { if (run === current) finish(); });
}

function start(count, source) {
  restore();
  const current = run = {
    count, source, ended: false, exitStatus: null, waits: [],
    resources: countResources(), timerMark: newestTimerId(),
  };
  let code = source;
  if (/\b(import|export)\b/.test(source)) {
    try {
      code = require('./modules.js').rewrite(source);
    } catch {
      code = source;  // V8 says better what is wrong with it
    }
  }
  onStack = true;
  evaluate(code, current);
  onStack = false;
  if (run === current && current.exitStatus !== null) exited(current.exitStatus);
}

function finish() {
  run.ended = true;
  run = null;
  send(DONE);
  session.post('Runtime.releaseObjectGroup', { objectGroup: 'run' });
  if (!descriptorsIntact()) reallyExit(1);  // nothing could be heard of a next run
  rehearsed?.();
}

function exited(status) {
  if (status !== 0) sendError('SystemExit', String(status), [`SystemExit: ${status}`]);
  muted = true;
  finish();
}

function exit(code = process.exitCode) {
  const status = Number(code ?? 0) & 0xff;
  process.exitCode = undefined;
  if (run === null) throw exitMark;
  run.exitStatus = status;
  if (onStack) {
    // Ends the evaluation from outside: no catch or finally of the cell runs after an exit.
    session.post('Runtime.terminateExecution');
    for (;;) ;
  }
  exited(status);
  throw exitMark;
}

// ---- interrupt -------------------------------------------------------------------------

const timerIdKey = (() => {
  const timer = setTimeout(() => {}, 1e6);
  clearTimeout(timer);
  return Object.getOwnPropertySymbols(timer).find((key) => key.description === 'asyncId');
})();

function newestTimerId() {
  const timer = setTimeout(() => {}, 1e6);
  clearTimeout(timer);
  return timer[timerIdKey];
}

function countResources() {
  const counts = new Map();
  for (const name of process.getActiveResourcesInfo()) counts.set(name, (counts.get(name) ?? 0) + 1);
  return counts;
}

/** Stops the timers this run started. They are found on the heap: Node has no list of them. */
function clearTimersAfter(mark) {
  holder.timerPrototype = Object.getPrototypeOf(setTimeout(() => {}, 0));
  const prototype = post('Runtime.callFunctionOn', {
    objectId: receiverId, functionDeclaration: 'function () { return this.timerPrototype; }', objectGroup: 'run',
  });
  const found = post('Runtime.queryObjects', { prototypeObjectId: prototype.answer.result.objectId, objectGroup: 'run' });
  for (const timer of valueOf(found.answer.objects) ?? []) {
    if (timer[timerIdKey] > mark) clearTimeout(timer);
  }
}

function interrupted() {
  const current = run;
  const text = 'KeyboardInterrupt: the run was interrupted';
  writeAll(2, Buffer.from(text + '\n'));
  sendError('KeyboardInterrupt', '', [text]);
  try {
    clearTimersAfter(current.timerMark);
  } catch {
    reallyExit(1);
  }
  for (const [name, count] of countResources()) {
    // Something this run started goes on. Without `done`, init kills it and this process.
    if (name !== 'Immediate' && count > (current.resources.get(name) ?? 0)) reallyExit(1);
  }
  finish();
}

function onSigint() {
  if (run !== null && rehearsals === 0) interrupted();
}

function onUncaught(error) {
  if (error === exitMark) return;
  if (process.listenerCount('uncaughtException') > 1) return;  // the tenant's own handler decides
  if (run !== null) return fail(error);
  try {
    writeAll(2, Buffer.from(inspect(error) + '\n'));
  } catch { /* an error that cannot be shown, and nobody to show it to */ }
}

function onRejection(reason) {
  if (reason === exitMark) return;
  if (process.listenerCount('unhandledRejection') > 1) return;
  onUncaught(reason);
}

// ---- the process -----------------------------------------------------------------------

const identities = [1, 2].map((fd) => { const st = fs.fstatSync(fd); return [fd, st.dev, st.ino]; });

function descriptorsIntact() {
  try {
    return identities.every(([fd, dev, ino]) => { const st = fs.fstatSync(fd); return st.dev === dev && st.ino === ino; });
  } catch {
    return false;
  }
}

/** Whatever the last run took away, this one starts with. */
function restore() {
  muted = rehearsals > 0;
  process.exit = process.reallyExit = exit;
  for (const [event, handler] of [['SIGINT', onSigint], ['uncaughtException', onUncaught], ['unhandledRejection', onRejection]]) {
    if (!process.listeners(event).includes(handler)) process.on(event, handler);
  }
  if (typeof Error.prepareStackTrace !== 'function') Error.prepareStackTrace = prepareStackTrace;
}

/** process.stdout and process.stderr: every write is in the pipe when it returns, and we can mute them. */
function setupOutput() {
  for (const name of ['stdout', 'stderr']) {
    const stream = process[name];
    stream._handle?.setBlocking?.(true);  // libuv opens a pipe non-blocking, for our children too
    const write = stream._write;
    const writev = stream._writev;
    // Nothing is written of an empty chunk, so it passes: rehearse() wants all of the way.
    stream._write = function (chunk, encoding, done) { return muted && chunk.length ? done() : write.call(this, chunk, encoding, done); };
    if (writev) stream._writev = function (chunks, done) { return muted ? done() : writev.call(this, chunks, done); };
  }
  // Not the global console: with an inspector session that one also keeps every message in memory.
  const { Console } = console;
  const own = new Console({ stdout: process.stdout, stderr: process.stderr });
  own.Console = Console;
  Object.defineProperty(globalThis, 'console', { value: own, writable: true, configurable: true, enumerable: false });
}

/** `require`, `module` and `import()` as a file in /workspace has them. */
function setupModules() {
  const cell = new Module(`${WORKSPACE}/[cell]`, null);
  cell.filename = `${WORKSPACE}/[cell]`;
  cell.paths = Module._nodeModulePaths(WORKSPACE);
  cell._compile('module.exports = { require, load: (name, options) => import(name, options) };', cell.filename);
  const { require: cellRequire, load } = cell.exports;
  cell.exports = {};
  cellRequire.main = cell;
  process.mainModule = cell;
  const hide = (name, value) => Object.defineProperty(globalThis, name, { value, writable: true, configurable: true, enumerable: false });
  hide('require', cellRequire);
  hide('module', cell);
  hide('exports', cell.exports);
  hide('__dirname', WORKSPACE);
  hide('__filename', cell.filename);
  hide('display', display);
  Object.defineProperty(globalThis, '__codespace__', {
    value: Object.freeze({
      import: load,
      meta: { url: `file://${WORKSPACE}/cell.mjs`, dirname: WORKSPACE, filename: `${WORKSPACE}/cell.mjs` },
    }),
  });
}

const holder = { receive: (value) => receive(value), timerPrototype: null };
function setupInspector() {
  session.connect();
  globalThis.__codespace_holder__ = holder;
  receiverId = post('Runtime.evaluate', { expression: '__codespace_holder__' }).answer.result.objectId;
  delete globalThis.__codespace_holder__;
}

/** The session's variables, from a frame instead of from exec. */
function configure(payload) {
  let at = 4;
  const text = () => {
    const size = payload.readUInt32LE(at);
    at += 4 + size;
    return payload.toString('utf8', at - size, at);
  };
  for (let left = payload.readUInt32LE(0); left > 0; left--) {
    const name = text();
    process.env[name] = text();
  }
  if (at !== payload.length) reallyExit(1);  // not what init sends
}

function serve() {
  let pending = Buffer.alloc(0);
  const take = (size, buffer) => {
    pending = Buffer.concat([pending, buffer.subarray(0, size)]);  // the buffer is used again
    while (pending.length >= 8 && pending.length >= 8 + pending.readUInt32LE(4)) {
      const length = pending.readUInt32LE(4);
      const type = pending.readUInt32LE(0);
      const payload = pending.subarray(8, 8 + length);
      pending = pending.subarray(8 + length);
      if (type === CONFIGURE) {
        try {
          configure(payload);
        } catch {
          reallyExit(1);
        }
        continue;
      }
      if (type !== EXECUTE || run !== null) reallyExit(1);
      startSoon(payload.readUInt32LE(0), payload.toString('utf8', 4));
    }
    return true;
  };
  const control = new net.Socket({
    fd: CONTROL, readable: true, writable: false, onread: { buffer: Buffer.alloc(64 * 1024), callback: take },
  });
  // The session goes away.
  control.on('end', () => reallyExit(0));
  control.on('error', () => reallyExit(0));
  control.resume();
}

/**
 * Two rounds of events later: an interrupt that was meant for the run before may have come
 * while this frame was being read, and Node sees it only in the next round.
 */
function startSoon(count, source) {
  setImmediate(setImmediate, start, count, source);
}

/**
 * Runs that nobody hears. V8 compiles a function when it is first called, which takes as long
 * as the rest of a run, so they go the whole way of one, short of its bytes.
 */
async function rehearse() {
  for (rehearsals = REHEARSALS; rehearsals > 0; rehearsals--) {
    startSoon(0, "console.log('%s', { a: [1, 'text', null] }); console.error(''); await 0; ({ a: 1 })");
    await new Promise((ended) => { rehearsed = ended; });
    process.stdout.write('');
    process.stderr.write('');
  }
  rehearsed = null;
  send(READY);
  serve();
}

process.argv.length = 1;
setupOutput();
setupModules();
setupInspector();
Error.prepareStackTrace = prepareStackTrace;  // newer releases of Node have one already
rehearse();
