// The page of a server: its three tools, each a form, a request, and the view of the answer.

import { byId } from "./dom.js";
import * as images from "./images.js";
import * as models from "./models.js";
import { bars, codePanel, heatMap, problem, ranking } from "./results.js";
import { ask, keepKey, Refused } from "./server.js";

const lines = (id) => byId(id).value.split("\n").map((line) => line.trim()).filter(Boolean);
const asItems = (chosen) => chosen.map((image) => ({ image }));

function classify(chosen) {
  const body = { image: chosen, labels: lines("labels"), ...models.named() };
  return { path: "v1/classify", body, show: (answer) => bars(answer, chosen) };
}

function compare(chosen) {
  const texts = lines("texts");
  const body = { a: asItems(chosen), b: texts.map((text) => ({ text })), ...models.named() };
  const show = (answer) => heatMap(answer, chosen, texts);
  return { path: "v1/similarity", body, texts, show };
}

function search(chosen) {
  const text = byId("query").value.trim();
  const body = { input: [...asItems(chosen), { text }], ...models.named() };
  return { path: "v1/embeddings", body, texts: [text], show: (answer) => ranking(answer, chosen) };
}

// A form whose answers appear below it. `requestOf`: images → {path, body, texts, show}.
class Tool {
  constructor(id, requestOf) {
    const form = byId(id);
    this.requestOf = requestOf;
    this.status = form.querySelector("[role=status]");
    this.alert = form.querySelector("[role=alert]");
    this.results = form.querySelector(".results");
    this.running = null;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
  }

  submit() {
    const chosen = images.all();
    if (!chosen.length) {
      images.askForImages();
      return;
    }
    this.running?.abort(); // the last request is the one whose answer counts
    this.running = new AbortController();
    this.run(chosen, this.requestOf(chosen), this.running);
  }

  async run(chosen, request, running) {
    this.show("The server computes …");
    try {
      const answer = await ask(request.path, request.body, running.signal);
      if (running !== this.running) return;
      const results = [...request.show(answer), codePanel(request, answer.model)];
      this.show(`Results of ${answer.model} are below.`, results);
    } catch (error) {
      if (running === this.running) this.fail(error, chosen, request.texts ?? []);
    }
  }

  show(said, results = []) {
    this.status.textContent = said;
    this.alert.replaceChildren();
    this.results.replaceChildren(...results);
  }

  fail(error, chosen, texts) {
    this.show("");
    const refused = error instanceof Refused ? error : new Refused(`the page failed: ${error.message}`);
    if (refused.status === 401) byId("access").open = true;
    const names = [...chosen.map(({ name }) => name), ...texts];
    this.alert.replaceChildren(problem(refused, names));
  }
}

keepKey();
models.offer();
images.listen();
new Tool("classify", classify);
new Tool("compare", compare);
new Tool("search", search);
