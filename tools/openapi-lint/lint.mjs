// Lints one OpenAPI description with the linter installed in $LINTER: node lint.mjs CONFIG FILE. Every problem is an error.
import { createRequire } from 'node:module';
import { resolve } from 'node:path';

const require = createRequire(resolve(process.env.LINTER, 'package.json'));
const { formatProblems, lint, loadConfig } = require('@redocly/openapi-core');

const [configPath, ref] = process.argv.slice(2);
const problems = (await lint({ ref, config: await loadConfig({ configPath }) })).filter((p) => !p.ignored);
formatProblems(problems, { totals: { errors: problems.length, warnings: 0, ignored: 0 } });
process.exitCode = problems.length > 0 ? 1 : 0;
