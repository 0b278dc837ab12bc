// A request as code: curl, Python, and OpenAI's client. Images are read from files by their names,
// and the key from the environment: neither is written into the code.

import { address, hasKey } from "./server.js";

const WIDTH = 88;

// `request`: {path, body}; the body's images are UserImages. `model`: the model that answered.
export function codes(request, model) {
  return [
    ["curl", curl(request)],
    ["Python", python(request)],
    ["openai", openai(request, model)],
  ];
}

function curl({ path, body }) {
  // In a document of the shell, `\`, `$` and "`" are special.
  const text = (value) => JSON.stringify(value).replace(/[\\$`]/g, "\\$&");
  const image = (name) => `"$(base64 < ${quoted(name)} | tr -d '\\n')"`;
  return [
    `curl ${quoted(address(path))} -H 'Content-Type: application/json' \\`,
    ...(hasKey() ? [`  -H "Authorization: Bearer $KEY" \\`] : []),
    "  --data-binary @- <<END",
    written(body, { text, image }),
    "END",
  ].join("\n");
}

const quoted = (word) => `'${word.replaceAll("'", "'\\''")}'`;

// A JSON string is a string of Python, too.
const PYTHON = { text: JSON.stringify, image: (name) => `image(${JSON.stringify(name)})` };

function python({ path, body }) {
  const headers = 'headers={"Authorization": "Bearer " + os.environ["KEY"]},';
  return [
    ...imports(body),
    "import requests",
    "",
    ...helper(body),
    "answer = requests.post(",
    `    ${JSON.stringify(address(path))},`,
    ...(hasKey() ? [`    ${headers}`] : []),
    `    json=${written(body, PYTHON, 4)},`,
    ")",
    "print(answer.json())",
  ].join("\n");
}

function openai({ path, body }, model) {
  const key = hasKey() ? 'os.environ["KEY"]' : '"none"';
  return [
    ...imports(body),
    "from openai import OpenAI",
    "",
    ...helper(body),
    `client = OpenAI(base_url=${JSON.stringify(address("v1"))}, api_key=${key})`,
    ...(path === "v1/embeddings" ? embeddings(body, model) : posted(path, body)),
  ].join("\n");
}

function embeddings({ input }, model) {
  return [
    "answer = client.embeddings.create(",
    `    model=${JSON.stringify(model)},`,
    `    input=${written(input, PYTHON, 4)},`,
    ")",
    "*images, query = [item.embedding for item in answer.data]",
    "print([sum(a * b for a, b in zip(image, query)) for image in images])",
  ];
}

// Paths that OpenAI does not have.
function posted(path, body) {
  return [
    "answer = client.post(",
    `    ${JSON.stringify(path.replace("v1", ""))},`,
    `    body=${written(body, PYTHON, 4)},`,
    "    cast_to=object,",
    ")",
    "print(answer)",
  ];
}

function imports(body) {
  const files = hasFiles(body) ? ["from pathlib import Path"] : [];
  const standard = [...(files.length ? ["import base64"] : []), ...(hasKey() ? ["import os"] : []), ...files];
  return standard.length ? [...standard, ""] : [];
}

function helper(body) {
  if (!hasFiles(body)) return [];
  const content = "    return base64.b64encode(Path(file).read_bytes()).decode()";
  return ["", "def image(file):", content, "", ""];
}

const isImage = (value) => typeof value?.cell === "string";

function hasFiles(value) {
  if (isImage(value)) return value.file;
  return typeof value === "object" && Object.values(value).some(hasFiles);
}

// A value of lists, objects, strings and images, on one line if it fits. `form`: how strings and
// names of files are written.
function written(value, form, indent = 0) {
  if (isImage(value)) return value.file ? form.image(value.name) : form.text(value.cell);
  if (typeof value === "string") return form.text(value);
  const line = enclosed(value, form, indent, ", ", "", "");
  if (line.length + indent <= WIDTH && !line.includes("\n")) return line;
  const space = " ".repeat(indent);
  return enclosed(value, form, indent + 4, `,\n${space}    `, `\n${space}    `, `\n${space}`);
}

function enclosed(value, form, indent, between, begin, end) {
  if (Array.isArray(value)) {
    return `[${begin}${value.map((item) => written(item, form, indent)).join(between)}${end}]`;
  }
  const entries = Object.entries(value);
  const items = entries.map(([name, item]) => `${JSON.stringify(name)}: ${written(item, form, indent)}`);
  return `{${begin}${items.join(between)}${end}}`;
}
