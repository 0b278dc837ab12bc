// What the server answered, as elements. Every colour and length has its number beside it.

import { codes } from "./code.js";
import { element, withShare } from "./dom.js";

// `/v1/classify`: for each image its labels, as bars.
export function bars(answer, images) {
  return answer.data.map(({ index, labels }) => {
    const rows = labels.map(({ label, score }) => barRow(label, score));
    const caption = element("caption", {}, images[index].name);
    const table = element("table", { className: "bars" }, caption, element("tbody", {}, ...rows));
    return element("div", { className: "scored" }, images[index].thumbnail(), table);
  });
}

function barRow(label, score) {
  const bar = withShare(element("span", { className: "bar", ariaHidden: "true" }), score);
  return element(
    "tr",
    {},
    element("th", { scope: "row" }, label),
    element("td", {}, bar),
    element("td", {}, `${(100 * score).toFixed(1)} %`),
  );
}

// `/v1/similarity`: images × texts. The largest number has the strongest colour, the smallest none.
export function heatMap(answer, images, texts) {
  const numbers = answer.data.flat();
  const least = numbers.reduce((one, other) => Math.min(one, other));
  const range = numbers.reduce((one, other) => Math.max(one, other)) - least || 1;
  const cell = (number) => withShare(element("td", {}, number.toFixed(3)), (number - least) / range);
  const row = (numbers, index) =>
    element("tr", {}, element("th", { scope: "row" }, images[index].name), ...numbers.map(cell));
  const heads = texts.map((text) => element("th", { scope: "col" }, text));
  const table = element(
    "table",
    { className: "heat" },
    element("caption", {}, "Cosine similarities"),
    element("thead", {}, element("tr", {}, element("td", {}), ...heads)),
    element("tbody", {}, ...answer.data.map(row)),
  );
  return [scrolling(table, "Similarities")];
}

// A wide element in a frame that the keyboard can scroll.
function scrolling(inner, label) {
  return element("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: label }, inner);
}

// `/v1/embeddings` of images and a query, the query last: the images, the most similar first.
export function ranking(answer, images) {
  const vectors = answer.data.map(({ embedding }) => embedding);
  const query = vectors.pop();
  const scored = images.map((image, index) => ({ image, score: dot(vectors[index], query) }));
  scored.sort((one, other) => other.score - one.score);
  const items = scored.map(({ image, score }, place) =>
    element(
      "li",
      {},
      image.thumbnail(),
      element("div", {}, `${place + 1}. ${image.name}`),
      element("div", { className: "note" }, `similarity ${score.toFixed(3)}`),
    ),
  );
  return [element("ol", { className: "ranking" }, ...items)];
}

const dot = (one, other) => one.reduce((sum, value, index) => sum + value * other[index], 0);

// A refusal in the server's words, with the rows that failed. `names`: of the request's rows.
export function problem(refused, names) {
  const { status, code, message, rows, retryAfter } = refused;
  const head = [status || "", code].filter(Boolean).join(" ");
  const said = element("p", {}, ...(head ? [element("strong", {}, head), " "] : []), message);
  const items = rows.map((row) => element("li", {}, describe(row, names)));
  const shown = element("div", { className: "error" }, said);
  if (items.length) shown.append(element("ul", {}, ...items));
  if (retryAfter) shown.append(element("p", {}, `Send it again in ${retryAfter} s.`));
  return shown;
}

function describe({ index, column, code, message }, names) {
  const name = names[index] ? ` (${names[index]})` : "";
  return `row ${index}${name}, ${column}: ${code}: ${message}`;
}

// The code of a request, behind a heading that opens it.
export function codePanel(request, model) {
  const said = element("p", { role: "status" });
  const blocks = codes(request, model).map(([name, text]) => block(name, text, said));
  const note = "Run it where the images are. The key is read from the variable KEY.";
  return element(
    "details",
    { className: "code" },
    element("summary", {}, "Code for this"),
    element("p", { className: "note" }, note),
    ...blocks.flat(),
    said,
  );
}

function block(name, text, said) {
  const pre = element("pre", { tabIndex: 0, role: "region", ariaLabel: `${name} code` }, text);
  const button = element("button", { type: "button", ariaLabel: `Copy the ${name} code` }, "Copy");
  button.addEventListener("click", async () => {
    said.textContent = (await copied(pre)) ? `The ${name} code is copied.` : "Copy it by hand: it is selected.";
  });
  return [element("div", { className: "head" }, element("h3", {}, name), button), pre];
}

// Browsers offer the clipboard to https and to this machine only; the older way works elsewhere.
async function copied(pre) {
  try {
    await navigator.clipboard.writeText(pre.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(pre);
    return document.execCommand("copy");
  }
}
