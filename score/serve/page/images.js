// The images that people have added: files, as base64, and links, which the server fetches.

import { byId, element } from "./dom.js";

const list = byId("images");
const input = byId("files");
const clear = byId("clear");
const status = byId("images-status");

// One image. `cell`: what requests send, base64 or a URL; `file`: whether it was a file.
export class UserImage {
  constructor(name, cell, preview = null) {
    Object.assign(this, { name, cell, preview, file: preview !== null });
  }

  // JSON.stringify of a body writes the image as its cell.
  toJSON() {
    return this.cell;
  }

  // A small view of it. A page of this server loads no image from elsewhere.
  thumbnail() {
    const instead = () => element("span", { className: "thumb" }, "no preview");
    if (!this.preview) return instead();
    const image = element("img", { className: "thumb", src: this.preview, alt: "" });
    image.addEventListener("error", () => image.replaceWith(instead()));
    return image;
  }
}

let images = [];

export const all = () => [...images];

// Says that there is no image, where the next Tab or Enter leads to adding one.
export function askForImages() {
  status.textContent = "Add an image first.";
  input.focus();
}

export function listen() {
  input.addEventListener("change", async () => {
    const files = [...input.files];
    input.value = ""; // the same file may be chosen again
    await addFiles(files);
  });
  byId("link").addEventListener("submit", (event) => {
    event.preventDefault();
    addLink(byId("url").value.trim());
    event.target.reset();
  });
  clear.addEventListener("click", () => remove(all()));
  listenToDrops();
  document.addEventListener("paste", paste);
}

// Anywhere on the page: a browser would leave the page for what is dropped beside the zone.
function listenToDrops() {
  const over = (isOver) => byId("drop").classList.toggle("over", isOver);
  document.addEventListener("dragover", (event) => {
    if (isText(event, event.dataTransfer)) return;
    event.preventDefault();
    over(true);
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) over(false); // the pointer has left the page
  });
  document.addEventListener("drop", (event) => {
    over(false);
    if (isText(event, event.dataTransfer)) return;
    event.preventDefault();
    take(event.dataTransfer);
  });
}

function paste(event) {
  if (!isText(event, event.clipboardData)) take(event.clipboardData);
}

// Whether something is for the text field below it.
function isText(event, transfer) {
  const isField = event.target.closest?.("textarea, input:not([type=file])");
  return Boolean(isField) && !transfer.types.includes("Files");
}

// Files, or else the links of what was dropped or pasted.
function take(transfer) {
  if (transfer.files.length) {
    addFiles([...transfer.files]);
    return;
  }
  const text = transfer.getData("text/uri-list") || transfer.getData("text/plain");
  const links = text.split(/\r?\n/).map((line) => line.trim());
  links.filter((line) => /^https?:\/\//i.test(line)).forEach(addLink);
}

async function addFiles(files) {
  const read = await Promise.all(files.map(fromFile));
  const unreadable = files.filter((_, index) => !read[index]).map((file) => file.name);
  add(read.filter(Boolean));
  if (unreadable.length) status.textContent = `Cannot be read: ${unreadable.join(", ")}.`;
}

// Null for what the browser cannot read, such as a folder.
function fromFile(file) {
  return new Promise((resolve) => {
    const reader = new FileReader();
    reader.onerror = () => resolve(null);
    reader.onload = () => {
      const base64 = reader.result.slice(reader.result.indexOf(",") + 1);
      resolve(new UserImage(file.name, base64, URL.createObjectURL(file)));
    };
    reader.readAsDataURL(file);
  });
}

function addLink(link) {
  if (link) add([new UserImage(link, link)]);
}

function add(added) {
  images.push(...added);
  draw(`${count(added.length)} added.`);
}

function remove(removed) {
  for (const { preview } of removed) if (preview) URL.revokeObjectURL(preview);
  images = images.filter((image) => !removed.includes(image));
  draw(`${count(removed.length)} removed.`);
  input.focus(); // the button that had it is gone
}

const count = (number) => `${number} ${number === 1 ? "image" : "images"}`;

function draw(said) {
  list.replaceChildren(...images.map(tile));
  clear.hidden = images.length === 0;
  status.textContent = said;
}

function tile(image) {
  const button = element("button", { type: "button", ariaLabel: `Remove ${image.name}` }, "Remove");
  button.addEventListener("click", () => remove([image]));
  return element("li", {}, image.thumbnail(), element("span", {}, image.name), button);
}
