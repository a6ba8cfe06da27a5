// Small helpers round the document; nothing here knows of poses.

/** The element with this id. */
export const $ = (id) => document.getElementById(id);

const SVG = "http://www.w3.org/2000/svg";

/** A new element. Text is always set as text, never as markup: names and messages come from outside. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Hand the browser a file to keep. */
export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = el("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** A number with so many digits, or a dash where there is none. */
export const fixed = (value, digits = 1) => (Number.isFinite(value) ? value.toFixed(digits) : "–");

/** "1 person", "2 people". */
export const count = (number, one, many) => `${number} ${number === 1 ? one : many}`;

/** A joint's name as one says it. */
export const spoken = (name) => name.replaceAll("_", " ");

/** `work` at most once a frame of the screen, however often it is asked for. */
export function everyFrame(work) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      work();
    });
  };
}
