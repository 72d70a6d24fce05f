// Elements. Text always goes in as text: nothing that came from elsewhere is ever read as markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

// An element of HTML; children are nodes or text.
export function make(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

// An element of SVG.
export function draw(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

// A table: heads are texts, rows are arrays of nodes or texts.
export function table(heads, rows, attributes) {
  const cell = (content) => make("td", content instanceof Node || typeof content !== "object" ? {} : content.attributes,
    content instanceof Node || typeof content !== "object" ? content : content.text);
  return make("table", attributes,
    make("thead", null, make("tr", null, heads.map((head) => make("th", { scope: "col" }, head)))),
    make("tbody", null, rows.map((row) => make("tr", null, row.map(cell)))));
}
