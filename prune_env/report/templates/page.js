"use strict";
// Draws the charts, sorts the tables, and shows the plan that a reader picks. All texts are set as text, never as HTML.
const page = JSON.parse(document.getElementById("data").textContent);
const views = [];

function draw(name, { spec, canvas }) {
  const place = document.getElementById(name);
  const whole = { config: page.config, ...spec, datasets: page.tables };
  // ast: Vega interprets expressions instead of compiling them, which the content security policy forbids.
  const tooltip = { disableDefaultStyle: true, formatTooltip: hint };
  const options = { ast: true, actions: false, renderer: canvas ? "canvas" : "svg", defaultStyle: false, tooltip };
  return vegaEmbed(place, whole, options).then(({ view }) => {
    views.push(view);
    view.addEventListener("click", (_, item) => {
      if (item && item.datum && Number.isInteger(item.datum.number)) show(item.datum.number);
    });
  });
}

function hint(value, sanitise) {
  // A table of what is known; sanitise escapes HTML.
  if (typeof value !== "object") return sanitise(value);
  const known = Object.entries(value).filter(([, text]) => text !== "null" && text !== "undefined");
  const rows = known.map(([key, text]) => `<tr><td class="key">${sanitise(key)}</td><td>${sanitise(text)}</td></tr>`);
  return `<table>${rows.join("")}</table>`;
}

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function show(number) {
  const place = document.getElementById("plan");
  const trial = (page.tables.plans || []).find((one) => one.number === number);
  if (!place || !trial || !page.widths[number]) return;
  for (const row of document.querySelectorAll("tr[aria-selected]")) row.removeAttribute("aria-selected");
  const button = document.querySelector(`button[data-trial="${number}"]`);
  if (button) button.closest("tr").setAttribute("aria-selected", "true");
  const percent = (share, digits) => (share === null ? "not known" : `${(100 * share).toFixed(digits)}%`);
  const words = [
    `${page.quality} ${percent(trial.quality, 2)}`,
    `reward ${trial.reward.toPrecision(4)}`,
    `${percent(trial.macs, 1)} of the MACs`,
    `${percent(trial.params, 1)} of the params`,
  ];
  const ours = page.widths[number];
  const best = page.widths[page.best];
  const lines = page.names
    .map((name, index) => [name, page.channels[index], ours[index], best ? best[index] : null])
    .sort((one, other) => (other[2] !== other[3]) - (one[2] !== one[3]));
  const differing = lines.filter((line) => line[3] !== null && line[2] !== line[3]).length;
  let against = "This is the best plan so far.";
  if (best && number !== page.best)
    against = `${differing} of ${lines.length} free units differ from the best plan, number ${page.best}.`;
  const table = element("table", "");
  const head = table.createTHead().insertRow();
  for (const [index, text] of ["unit", "channels", "kept", "best keeps", "difference"].entries())
    head.append(element("th", text, index ? { class: "number", scope: "col" } : { scope: "col" }));
  const body = table.createTBody();
  for (const [name, channels, kept, theirs] of lines) {
    const row = body.insertRow();
    row.append(element("td", name));
    const difference = theirs === null ? "" : kept === theirs ? "0" : kept > theirs ? `+${kept - theirs}` : `−${theirs - kept}`;
    for (const text of [channels, kept, theirs ?? "", difference]) row.append(element("td", text, { class: "number" }));
    if (kept !== theirs) row.className = "chosen";
  }
  const frame = element("div", "", { class: "long", tabindex: "0", role: "group", "aria-label": "The picked plan" });
  frame.append(table);
  const parts = [element("h3", `Plan ${number}, proposed by ${trial.by}`), element("p", `${words.join(", ")}. ${against}`), frame];
  place.replaceChildren(...parts);
  for (const view of views) {
    try {
      view.data("selected", [trial]).run();
    } catch {
      // This chart has no mark for the picked plan.
    }
  }
}

function sort(table, column, heading) {
  const down = heading.getAttribute("aria-sort") !== "descending";
  for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const key = (row) => {
    const cell = row.cells[column];
    const value = cell.dataset.value ?? cell.textContent;
    return value !== "" && !Number.isNaN(Number(value)) ? Number(value) : value === "-inf" ? -Infinity : value;
  };
  const order = (one, other) => (one < other ? -1 : one > other ? 1 : 0);
  const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
  rows.sort(([one], [other]) => (down ? order(other, one) : order(one, other)));
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

for (const table of document.querySelectorAll("table.sortable"))
  for (const [column, heading] of [...table.querySelectorAll("th")].entries())
    heading.querySelector("button").addEventListener("click", () => sort(table, column, heading));
for (const button of document.querySelectorAll("button[data-trial]"))
  button.addEventListener("click", () => show(Number(button.dataset.trial)));
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => (one.open = true)));

Promise.all(Object.entries(page.charts).map(([name, chart]) => draw(name, chart)))
  .then(() => Number.isInteger(page.best) && show(page.best))
  .finally(() => document.documentElement.setAttribute("data-drawn", "true"));
