"use strict";
// What a page can do beside being read: values where one points or taps, zoom, sorting, one phase at a time.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (tag, text, attributes = {}) => {
    const element = document.createElement(tag);
    element.textContent = text;
    Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
    return element;
  };

  // Values: what a title says, beside the pointer or the finger
  const tip = make("div", "", { id: "tip", role: "status", hidden: "" });
  document.body.append(tip);
  const takeTitles = (root) => all("svg title", root).forEach((title) => {
    title.parentElement.dataset.tip = title.textContent;
    title.remove();
  });
  const showTip = (event) => {
    const found = event.target.closest ? event.target.closest("[data-tip]") : null;
    tip.hidden = !found;
    if (!found) return;
    tip.textContent = found.dataset.tip;
    const box = tip.getBoundingClientRect();
    const above = event.clientY - box.height - 14;
    tip.style.left = `${Math.max(8, Math.min(event.clientX + 12, innerWidth - box.width - 8))}px`;
    tip.style.top = `${above < 8 ? event.clientY + 22 : above}px`;
  };
  ["pointermove", "click"].forEach((kind) => document.addEventListener(kind, showTip));
  document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

  // Zoom: places across are percentages, of the whole at first and then of the part from `begin` to `end`
  const number = (element, name) => parseFloat(element.getAttribute(name) || "0");
  const isShare = (element, name) => (element.getAttribute(name) || "").endsWith("%");
  const placeOf = (element) => {
    if (!element.place) {
      const [left, right] = element.tagName === "line" ? ["x1", "x2"] : ["x", null];
      const begin = number(element, left);
      const width = isShare(element, "width") ? number(element, "width") : 0;
      element.place = { begin, end: right ? number(element, right) : begin + width, hasWidth: width > 0 };
    }
    return element.place;
  };
  const move = (element, begin, end) => {
    const place = placeOf(element);
    const at = (value) => ((value - begin) / (end - begin)) * 100;
    const [left, right] = [at(place.begin), at(place.end)];
    const isOutside = right < 0 || left > 100 || (place.hasWidth && (right <= 0 || left >= 100));
    element.style.display = isOutside ? "none" : "";
    if (isOutside) return;
    if (element.tagName === "line") {
      element.setAttribute("x1", `${left}%`);
      element.setAttribute("x2", `${right}%`);
      return;
    }
    element.setAttribute("x", `${place.hasWidth ? Math.max(0, left) : left}%`);
    if (place.hasWidth) element.setAttribute("width", `${Math.min(100, right) - Math.max(0, left)}%`);
  };
  const zoom = (chart, begin, end) => {
    chart.zoomed = [begin, end];
    all(".moves rect, .moves line, .moves text, .moves svg, .frame", chart).forEach((element) => {
      if (!element.parentElement.closest(".frame")) move(element, begin, end);
    });
    all(".curves", chart).forEach((curves) => {
      const height = curves.getAttribute("height");
      curves.setAttribute("viewBox", `${begin * 10} 0 ${(end - begin) * 10} ${height}`);
    });
    all(".frame", chart).forEach((frame) => {
      if (number(frame, "width") < 4 || frame.querySelector("text")) return;
      const text = document.createElementNS("http://www.w3.org/2000/svg", "text");
      text.setAttribute("x", "4");
      text.setAttribute("y", "13");
      text.textContent = frame.querySelector("rect").dataset.tip.split(": ")[0];
      frame.append(text);
    });
    if (chart.told) chart.told(begin, end);
  };
  const tools = (chart, isFirst) => {
    const [setup, total] = [number(chart, "data-setup") * 100, number(chart, "data-total")];
    const words = make("span", "");
    const step = (share) => Math.max(0, Math.min(total, Math.floor(((share - setup) / (100 - setup)) * total) + 1));
    chart.told = (begin, end) => {
      const isWhole = end - begin > 99.9;
      words.textContent = isWhole && isFirst ? "Drag over the chart, or use the buttons, to look closer." : "";
      if (!isWhole && total) words.textContent = `Steps ${step(begin)} to ${step(end - 0.001)} of ${total}`;
    };
    const by = (factor) => () => {
      const [begin, end] = chart.zoomed;
      const width = Math.max(0.5, Math.min(100, (end - begin) * factor));
      const left = Math.max(0, Math.min(100 - width, (begin + end - width) / 2));
      zoom(chart, left, left + width);
    };
    const shift = (share) => () => {
      const [begin, end] = chart.zoomed;
      const left = Math.max(0, Math.min(100 - (end - begin), begin + share * (end - begin)));
      zoom(chart, left, left + end - begin);
    };
    const actions = [["+", "Closer", by(0.5)], ["−", "Wider", by(2)], ["◀", "Earlier", shift(-0.5)],
      ["▶", "Later", shift(0.5)], ["Whole run", "Whole run", () => zoom(chart, 0, 100)]];
    const bar = make("div", "", { class: "tools" });
    actions.forEach(([text, name, run]) => {
      const button = make("button", text, { type: "button", "aria-label": name });
      button.addEventListener("click", run);
      bar.append(button);
    });
    bar.append(words);
    chart.closest(".plot").before(bar);
    chart.told(0, 100);
  };
  const dragging = (chart) => {
    let from = null;
    const share = (event) => {
      const box = chart.getBoundingClientRect();
      return Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
    };
    chart.addEventListener("pointerdown", (event) => { from = event.pointerType === "mouse" ? share(event) : null; });
    chart.addEventListener("pointerup", (event) => {
      if (from === null) return;
      const [begin, end] = chart.zoomed;
      const ends = [from, share(event)].sort((a, b) => a - b).map((value) => begin + value * (end - begin));
      if ((ends[1] - ends[0]) / (end - begin) > 0.02) zoom(chart, ...ends);
      from = null;
    });
  };
  const equip = (root) => {
    takeTitles(root);
    all("svg.timeline", root).forEach((chart, position) => {
      chart.zoomed = [0, 100];
      tools(chart, position === 0);
      dragging(chart);
    });
    all("svg.flame", root).forEach((chart) => chart.addEventListener("click", (event) => {
      const frame = event.target.closest(".frame");
      if (!frame) return;
      const place = placeOf(frame);
      const isBack = chart.zoomed && Math.abs(chart.zoomed[0] - place.begin) + Math.abs(chart.zoomed[1] - place.end) < 0.01;
      zoom(chart, ...(isBack ? [0, 100] : [place.begin, place.end]));
    }));
  };

  // Sorting: by the column whose title is clicked
  const units = { B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40 };
  const valueOf = (text) => {
    const found = /^[<+]?(-?[\d.,]+)\s*(TiB|GiB|MiB|KiB|B)?(?![\d.])/.exec(text.replace("−", "-"));
    if (!found) return text === "–" ? -Infinity : NaN;
    return parseFloat(found[1].replace(/,/g, "")) * (units[found[2]] || 1);
  };
  const compare = (a, b) => {
    const [first, second] = [valueOf(a), valueOf(b)];
    return Number.isNaN(first) || Number.isNaN(second) ? a.localeCompare(b, "en", { numeric: true }) : first - second;
  };
  const sortable = (table) => {
    const body = table.tBodies[0];
    const rows = body ? [...body.rows] : [];
    if (rows.length < 3 || rows.some((row) => !row.cells.length)) return;
    [...table.tHead.rows[0].cells].forEach((title, column) => {
      if (!title.textContent) return;
      const button = make("button", title.textContent, { type: "button", class: "sort" });
      title.replaceChildren(button);
      button.addEventListener("click", () => {
        const order = title.getAttribute("aria-sort") === "descending" ? "ascending" : "descending";
        all("th", table.tHead).forEach((other) => other.removeAttribute("aria-sort"));
        title.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        const text = (row) => row.cells[column].textContent.trim();
        body.append(...[...body.rows].sort((a, b) => sign * compare(text(a), text(b))));
      });
    });
  };

  // One phase at a time
  const select = make("select", "", { "aria-label": "Phase" });
  const choosePhase = () => {
    all("[data-phase]").forEach((element) => {
      element.classList.toggle("other-phase", select.value !== "" && element.dataset.phase !== select.value);
    });
    all("[data-curve]").forEach((curve) => curve.classList.toggle("chosen", curve.dataset.curve === select.value));
  };
  const phases = () => {
    const known = new Set(all("[data-phase]").map((element) => element.dataset.phase));
    all("tbody th").forEach((cell) => {
      if (known.has(cell.textContent)) cell.parentElement.dataset.phase = cell.textContent;
    });
    all("summary").forEach((summary) => {
      const found = /peak of ([A-Z]+)$/.exec(summary.textContent);
      if (found) summary.parentElement.dataset.phase = found[1];
    });
    const chosen = select.value;
    const names = [...known].map((name) => make("option", name));
    select.replaceChildren(make("option", "all phases", { value: "" }), ...names);
    select.value = known.has(chosen) ? chosen : "";
    select.parentElement.hidden = known.size < 2;
    choosePhase();
  };
  const filter = make("label", "Show ", { class: "filter" });
  filter.append(select);
  select.addEventListener("change", choosePhase);
  document.querySelector("nav").append(filter);

  const copying = () => all("pre.command").forEach((command) => {
    if (!navigator.clipboard) return;
    const button = make("button", "Copy", { type: "button", class: "copy" });
    button.addEventListener("click", () => navigator.clipboard.writeText(command.textContent).then(() => {
      button.textContent = "Copied";
    }));
    command.before(button);
  });

  const begin = (root) => {
    equip(root);
    all("table", root).forEach(sortable);
    phases();
  };
  Object.assign(window, { begin, zoomChart: zoom }); // the live page draws anew
  begin(document);
  copying();
  document.documentElement.classList.add("scripted");
})();
