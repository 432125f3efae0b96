// Builds rules in one process, since the compiler takes longer to start than to
// compile: node build.mjs <the compiler's asc.js> <folder of the modules> <sources>
// The sources are named from this folder, whose asconfig.json has the flags.
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const [compiler, folder, ...sources] = process.argv.slice(2);
const { default: asc } = await import(pathToFileURL(resolve(compiler)));
const out = resolve(folder);
process.chdir(dirname(fileURLToPath(import.meta.url)));
for (const source of sources) {
  const { error, stderr } = await asc.main([source, "--outFile", join(out, basename(source, ".ts") + ".wasm")]);
  if (error) {
    console.error(`${source}: ${error.message}\n${stderr}`);
    process.exit(1);
  }
}
