// node manifests.mjs MODULES RENDERED.yaml TYPED.ts: validates each document against the schema of its kind, and writes them as
// constants of that kind's type, so that the TypeScript compiler finds the fields that the kind does not have.
import fs from 'fs';
import {createRequire} from 'module';

const [modules, rendered, typed] = process.argv.slice(2);
const require = createRequire(modules + '/');
const {parseAllDocuments} = require('yaml');

let wrong = 0;
const lines = [];
const documents = parseAllDocuments(fs.readFileSync(rendered, 'utf8')).map((d) => d.toJSON()).filter((o) => o);
documents.forEach((object, i) => {
  const path = 'kubernetes-models/' + object.apiVersion;
  const title = `${object.apiVersion} ${object.kind} ${object.metadata?.name}`;
  try {
    new (require(path)[object.kind])(object).validate();
  } catch (error) {
    wrong++;
    console.log(`${title}: ${error.message}`);
  }
  lines.push(`import type {I${object.kind} as T${i}} from '${path}/${object.kind}';`,
             `export const document${i}: T${i} = ${JSON.stringify(object, null, 1)};`);
});
fs.writeFileSync(typed, lines.join('\n') + '\n');
console.log(`${documents.length} documents, ${wrong} wrong`);
process.exit(wrong || documents.length === 0 ? 1 : 0);
