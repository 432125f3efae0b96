// The bindings and the kit against the vectors that all languages share. From the
// repository: node sdk_test.mjs sdk_test.wasm plugins/abi/testdata plugins/sdk/rules/vectors
import { deepStrictEqual, ok } from "node:assert";
import { readFileSync } from "node:fs";

const [wasm, testdata, vectors] = process.argv.slice(2);
const imports = { env: { abort: () => { throw new Error("abort"); } } };
const { exports } = new WebAssembly.Instance(new WebAssembly.Module(readFileSync(wasm)), imports);
exports._initialize();

for (const name of ["input_minimal", "input_plain", "input_full"]) {
  const size = exports[`golden_${name}`]();
  const got = Buffer.from(exports.memory.buffer, exports.rule_buffer(8 << 10), size);
  deepStrictEqual(got, readFileSync(`${testdata}/${name}.bin`), name);
}

const cases = readFileSync(`${vectors}/money.tsv`, "utf8").trim().split("\n");
ok(cases.length > 20);
for (const line of cases) {
  const [amount, points, ...want] = line.split("\t").map(BigInt);
  const got = [exports.shareDown, exports.shareHalfEven, exports.shareUp].map((share) => share(amount, points));
  deepStrictEqual(got, want, line);
}
console.log("ok");
