// Rewrites `import` and `export` of a JavaScript cell. V8's REPL mode runs scripts, which have
// neither import declarations nor, inside Node, a host that answers import(). Loaded by
// kernel.js only for cells that contain one of the two words. The parser is the acorn that
// Node carries for its own REPL, so the words in strings and comments are left alone.
'use strict';

let parser = null;

function getParser() {
  if (parser === null) {
    const id = 'internal/deps/acorn/acorn/dist/acorn';
    const exports = {};
    const source = process.binding('natives')[id];
    new Function('exports', 'module', 'require', 'define', source)(exports, { exports }, undefined, undefined);
    parser = exports.parse ? exports : null;
  }
  return parser;
}

/** Calls `visit` for every node of the tree. */
function walk(node, visit) {
  visit(node);
  for (const key of Object.keys(node)) {
    const child = node[key];
    if (Array.isArray(child)) {
      for (const item of child) if (item && typeof item.type === 'string') walk(item, visit);
    } else if (child && typeof child.type === 'string') {
      walk(child, visit);
    }
  }
}

const nameOf = (node) => (node.type === 'Literal' ? JSON.stringify(node.value) : node.name);

function declaration(node) {
  const from = `await __codespace__.import(${node.source.raw})`;
  if (node.specifiers.length === 0) return `${from};`;
  const parts = [];
  let whole = null;
  for (const specifier of node.specifiers) {
    if (specifier.type === 'ImportNamespaceSpecifier') whole = specifier.local.name;
    else if (specifier.type === 'ImportDefaultSpecifier') parts.push(`default: ${specifier.local.name}`);
    else parts.push(`${nameOf(specifier.imported)}: ${specifier.local.name}`);
  }
  if (whole === null) return `const { ${parts.join(', ')} } = ${from};`;
  return `const ${whole} = ${from};` + (parts.length ? ` const { ${parts.join(', ')} } = ${whole};` : '');
}

/** The cell as a script: the same lines, so that positions in errors hold. */
function rewrite(source) {
  const tree = getParser().parse(source, {
    ecmaVersion: 'latest', sourceType: 'module', allowAwaitOutsideFunction: true,
    allowReturnOutsideFunction: false, allowHashBang: true,
  });
  const edits = [];  // [start, end, text]
  const imports = [];
  walk(tree, (node) => {
    if (node.type === 'ImportExpression') edits.push([node.start, node.start + 'import'.length, '__codespace__.import']);
    if (node.type === 'MetaProperty' && node.meta.name === 'import') edits.push([node.start, node.end, '__codespace__.meta']);
    if (node.type === 'ImportDeclaration') {
      // Imports come first, wherever they stand.
      imports.push(declaration(node));
      edits.push([node.start, node.end, source.slice(node.start, node.end).replace(/[^\n]/g, '')]);
    }
    if (node.type === 'ExportNamedDeclaration')
      edits.push(node.declaration ? [node.start, node.declaration.start, ''] : [node.start, node.end, '']);
    if (node.type === 'ExportDefaultDeclaration') edits.push([node.start, node.declaration.start, '']);
  });
  let text = source;
  for (const [start, end, replacement] of edits.sort((a, b) => b[0] - a[0]))
    text = text.slice(0, start) + replacement + text.slice(end);
  return imports.join(' ') + text;
}

module.exports = { rewrite };
