// Builds every rule of this folder in one process, since the compiler takes longer to
// start than to compile: node build.mjs <the compiler's asc.js> <folder of the modules>
import { readdirSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const { default: asc } = await import(pathToFileURL(resolve(process.argv[2])));
const out = resolve(process.argv[3]);
process.chdir(dirname(fileURLToPath(import.meta.url)));
for (const source of readdirSync(".").filter((file) => file.endsWith(".ts"))) {
  const { error, stderr } = await asc.main([source, "--outFile", join(out, basename(source, ".ts") + ".wasm")]);
  if (error) {
    console.error(`${source}: ${error.message}\n${stderr}`);
    process.exit(1);
  }
}
