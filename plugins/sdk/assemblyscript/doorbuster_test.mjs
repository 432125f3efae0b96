// Runs tests of rules under Node, with nothing else installed:
//
//   node doorbuster_test.mjs rule_test.wasm [vectors.tsv]
//
// runs every exported function whose name begins with "test", and with a table the
// module's rule_evaluate on each of its cases. Each test and each case has an instance
// of its own, as each evaluation of the host starts from the same memory. The exit code
// is 1 when one of them fails.
import { readFileSync } from "node:fs";

// utf16 reads a string of AssemblyScript; its bytes are counted in front of it.
function utf16(memory, at) {
  const bytes = new DataView(memory.buffer).getUint32(at - 4, true);
  return new TextDecoder("utf-16le").decode(new Uint8Array(memory.buffer, at, bytes));
}

function utf8(memory, at, size) {
  return new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array(memory.buffer, at, size));
}

function instantiate(module) {
  let memory = null;
  const imports = {
    env: {
      abort(message, file, line, column) {
        throw new Error(`${file ? utf16(memory, file) : "?"}:${line}:${column}: ${message ? utf16(memory, message) : "failed"}`);
      },
    },
    doorbuster: {
      log(at, size) {
        console.log("log:", utf8(memory, at, size));
      },
    },
  };
  const { exports } = new WebAssembly.Instance(module, imports);
  memory = exports.memory;
  exports._initialize?.();
  return exports;
}

// evaluate prices one encoded input as the host does.
function evaluate(module, encoded) {
  const exports = instantiate(module);
  const buffer = exports.rule_buffer(8 << 10);
  new Uint8Array(exports.memory.buffer, buffer, encoded.length).set(encoded);
  const answer = BigInt.asUintN(64, exports.rule_evaluate(encoded.length));
  const output = new DataView(exports.memory.buffer, Number(answer >> 32n), 32);
  const text = (at) => utf8(exports.memory, output.getUint32(at, true), output.getUint32(at + 4, true));
  const outcome = output.getUint16(0, true);
  // An outcome that is no discount has none.
  const discount = outcome === 1 ? output.getBigInt64(8, true) : 0n;
  return [outcome, discount, output.getUint16(2, true), text(24), text(16)].join("\t");
}

// vectors yields each case of a table with what is wrong with it.
function* vectors(module, table) {
  for (const line of table.split("\n").filter((l) => l !== "")) {
    const [encoded, ...rest] = line.split("\t");
    const name = rest.pop(), want = rest.join("\t");
    yield [name, () => {
      const got = evaluate(module, Buffer.from(encoded, "hex"));
      if (got !== want) throw new Error(`got  ${got}\n  want ${want}`);
    }];
  }
}

function* tests(module) {
  for (const { name, kind } of WebAssembly.Module.exports(module)) {
    if (kind === "function" && name.startsWith("test")) yield [name, () => instantiate(module)[name]()];
  }
}

const [wasm, table] = process.argv.slice(2);
const module = new WebAssembly.Module(readFileSync(wasm));
const cases = table ? [...vectors(module, readFileSync(table, "utf8"))] : [];
let run = 0, failed = 0;
for (const [name, test] of [...tests(module), ...cases]) {
  run++;
  try {
    test();
  } catch (error) {
    failed++;
    console.log(`FAIL ${name}\n  ${error.message}`);
  }
}
console.log(`${run - failed} of ${run} passed`);
process.exit(failed > 0 || run === 0 || (table && cases.length === 0) ? 1 : 0);
