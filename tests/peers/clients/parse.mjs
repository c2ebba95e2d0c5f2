// @ts-check
// Reads an AsyncAPI document with the official parser; prints its version and what is wrong with it, as JSON.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [folder, file] = process.argv.slice(2);
const { Parser } = createRequire(folder + "/")("@asyncapi/parser");
const { document, diagnostics } = await new Parser().parse(readFileSync(file, "utf8"));
console.log(
  JSON.stringify({
    version: document?.version() ?? null,
    messages:
      document
        ?.allMessages()
        .all()
        .map((message) => message.id()) ?? [],
    operations:
      document
        ?.operations()
        .all()
        .map((operation) => operation.id()) ?? [],
    problems: diagnostics
      .filter(({ severity }) => severity < 2)
      .map(({ path, message }) => `${path.join(".")}: ${message}`),
  }),
);
