"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const page = document.getElementById("page");
  const status = document.getElementById("status");
  const facts = document.getElementById("facts");
  const hidden = new Set();
  const scales = new Map();
  const images = new Map();
  // An element. Text becomes text nodes, so that names of files are never read as HTML.
  const element = (space) => (tag, attributes = {}, ...children) => {
    const made = space ? document.createElementNS(SVG, tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === undefined || value === false) continue;
      if (name === "style") made.style.cssText = value;
      else made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return made;
  };
  const html = element(false);
  const svg = element(true);

  const short = (value) => {
    if (value === null || value === undefined || !Number.isFinite(value)) return "–";
    const size = Math.abs(value);
    if (size !== 0 && (size >= 1e7 || size < 1e-4)) return value.toExponential(1).replace("e+", "e");
    return String(Number(value.toPrecision(4)));
  };
  // A tick: the digits that distinguish it from its neighbour at this distance.
  const tickText = (value, apart) => {
    const size = Math.abs(value);
    if (size < 1e-9 * apart) return "0";
    if (size >= 1e7 || size < 1e-4) return value.toExponential(1).replace("e+", "e");
    return String(Number(value.toFixed(Math.min(8, Math.max(0, Math.ceil(-Math.log10(apart) + 1e-9))))));
  };
  const duration = (seconds) => {
    const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, Math.floor(seconds) % 60];
    return h ? `${h} h ${m} min` : m ? `${m} min ${s} s` : `${s} s`;
  };
  const colour = (index) => `var(--c${index % 6})`;
  // Runs beyond the sixth repeat the colours with other dashes.
  const dash = (index) => ["", "6 3", "2 3", "8 3 2 3"][Math.floor(index / 6) % 4];

  const ticks = (low, high, count) => {
    const rough = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough) || 10 * power;
    const found = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) found.push(i * step);
    return found;
  };
  const logTicks = (low, high) => {
    for (const factors of [[1], [1, 2, 5], [1, 2, 3, 4, 5, 6, 7, 8, 9]]) {
      const every = Math.max(1, Math.ceil((high - low) / 6));
      const found = [];
      for (let p = Math.floor(low); p <= Math.ceil(high); p++) {
        if (p % every === 0) for (const f of factors) found.push(p + Math.log10(f));
      }
      const inside = found.filter((t) => t >= low - 1e-9 && t <= high + 1e-9);
      if (inside.length >= 3) return inside;
    }
    return ticks(low, high, 3);
  };

  // The curves of a panel: points [step, mean, min, max], those of hidden runs left out.
  const curves = (panel, runs) => {
    const found = [];
    runs.forEach((run, index) => {
      if (hidden.has(run.name)) return;
      for (const kind of ["train", "validation"]) {
        const points = (run[kind][panel[kind]] || []).map(([step, ...values]) => [step, ...values.map((v) => v * panel.scale)]);
        if (points.length === 0) continue;
        const alone = runs.length === 1;
        found.push({ run, kind, points, colour: colour(alone ? Number(kind === "validation") : index), dash: dash(index) });
      }
    });
    return found;
  };

  const draw = (panel, runs, holder) => {
    const all = curves(panel, runs);
    const [w, h] = [Math.max(holder.clientWidth, 240), 240];
    const [left, right, top, bottom] = [58, 12, 8, 38];
    const values = all.flatMap((c) => c.points.flatMap((p) => p.slice(1)));
    const positive = values.length > 0 && values.every((v) => v > 0);
    let [low, high] = [Math.min(...values.slice(0, 1)), Math.max(...values.slice(0, 1))];
    for (const v of values) [low, high] = [Math.min(low, v), Math.max(high, v)];
    const log = positive && (scales.get(panel.title) ?? high > 8 * low);
    const to = (v) => (log ? Math.log10(v) : v);
    let [y0, y1] = values.length ? [to(low), to(high)] : [0, 1];
    // A constant: the range must not be empty.
    const margin = 0.1 * Math.abs(y1) || 1;
    if (y1 - y0 <= 1e-9 * margin) [y0, y1] = [y0 - margin, y1 + margin];
    [y0, y1] = [y0 - 0.04 * (y1 - y0), y1 + 0.04 * (y1 - y0)];
    const last = Math.max(1, ...all.map((c) => c.points[c.points.length - 1][0]));
    const x = (step) => left + (step / last) * (w - left - right);
    const y = (v) => top + (1 - (to(v) - y0) / (y1 - y0)) * (h - top - bottom);
    const chart = svg("svg", { viewBox: `0 0 ${w} ${h}`, role: "img", "aria-label": panel.title });
    const marks = log ? logTicks(y0, y1) : ticks(y0, y1, 4);
    const apart = marks.length > 1 ? marks[1] - marks[0] : 1;
    for (const tick of marks) {
      const at = top + (1 - (tick - y0) / (y1 - y0)) * (h - top - bottom);
      chart.append(
        svg("line", { class: "grid", x1: left, x2: w - right, y1: at, y2: at }),
        svg("text", { x: left - 6, y: at + 4, "text-anchor": "end" }, log ? short(10 ** tick) : tickText(tick, apart)));
    }
    for (const tick of ticks(0, last, w < 420 ? 3 : 6)) {
      chart.append(
        svg("line", { class: "grid", x1: x(tick), x2: x(tick), y1: top, y2: h - bottom }),
        svg("text", { x: x(tick), y: h - bottom + 15, "text-anchor": tick === 0 ? "start" : tick > 0.95 * last ? "end" : "middle" }, short(tick)));
    }
    chart.append(svg("text", { x: w - right, y: h - 5, "text-anchor": "end" }, "step"));
    chart.append(svg("text", { x: 2, y: h - 5 }, panel.unit));
    const shown = runs.filter((run) => !hidden.has(run.name));
    if (shown.length === 1 && shown[0].best_step > 0) {
      const at = x(shown[0].best_step);
      chart.append(svg("line", { class: "best", x1: at, x2: at, y1: top, y2: h - bottom }));
    }
    for (const c of all) {
      if (c.points.some((p) => p.length > 2)) {
        const upper = c.points.map((p) => `${x(p[0]).toFixed(1)},${y(p[3] ?? p[1]).toFixed(1)}`);
        const lower = c.points.map((p) => `${x(p[0]).toFixed(1)},${y(p[2] ?? p[1]).toFixed(1)}`).reverse();
        chart.append(svg("polygon", { points: [...upper, ...lower].join(" "), style: `fill:${c.colour};opacity:.16` }));
      }
      const line = c.points.map((p) => `${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`).join(" ");
      const thin = c.kind === "train" && panel.validation && runs.length > 1;
      chart.append(svg("polyline", { points: line, style: `fill:none;stroke:${c.colour};stroke-width:${thin ? 1 : 1.8};stroke-dasharray:${c.dash};opacity:${thin ? 0.6 : 1}` }));
      if (c.points.length <= (c.kind === "validation" ? 60 : 1)) {
        for (const p of c.points) chart.append(svg("circle", { cx: x(p[0]), cy: y(p[1]), r: 3, style: `fill:${c.colour}` }));
      }
    }
    const cursor = svg("line", { class: "cursor", x1: 0, x2: 0, y1: top, y2: h - bottom, visibility: "hidden" });
    chart.append(cursor);
    const read = html("p", { class: "read" });
    const move = (event) => {
      const box = chart.getBoundingClientRect();
      const step = ((((event.clientX - box.left) / box.width) * w - left) / (w - left - right)) * last;
      const near = (points) => points.reduce((a, b) => (Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a));
      if (all.length === 0) return;
      const at = near(all.map((c) => near(c.points)))[0];
      cursor.setAttribute("x1", x(at));
      cursor.setAttribute("x2", x(at));
      cursor.setAttribute("visibility", "visible");
      read.replaceChildren(html("span", {}, `step ${at}`), ...all.map((c) => {
        const point = near(c.points);
        const name = runs.length > 1 ? `${c.run.name} (${c.kind === "train" ? "training" : c.kind})` : c.kind === "train" ? "training" : c.kind;
        return html("span", {}, html("i", { class: "swatch", style: `background:${c.colour}` }), `${name} ${short(point[1])}`);
      }));
    };
    chart.addEventListener("pointermove", move);
    chart.addEventListener("pointerleave", () => { cursor.setAttribute("visibility", "hidden"); read.replaceChildren(); });
    const swatch = (c, dot) => html("i", { class: dot ? "swatch dot" : "swatch", style: `background:${c}` });
    const kinds = new Set(all.map((c) => c.kind));
    const drawn = [...new Map(all.map((c) => [c.run.name, c.colour]))];
    const legend = runs.length > 1
      ? [...(drawn.length <= 6 ? drawn.map(([name, c]) => html("span", {}, swatch(c, false), name)) : []), kinds.size > 1 ? html("span", {}, "thin: training, with dots: validation") : html("span", {}, kinds.has("train") ? "training" : "validation")]
      : all.map((c) => html("span", {}, swatch(c.colour, c.kind === "validation"), c.kind === "train" ? "training" : "validation"));
    const button = html("button", { type: "button", id: `scale-${panel.title}`, title: "Change the vertical axis" }, log ? "logarithmic" : "linear");
    button.hidden = !positive;
    button.addEventListener("click", () => { scales.set(panel.title, !log); show(shownData); });
    holder.replaceChildren(
      html("div", { class: "head" }, html("h3", {}, panel.title), button),
      html("p", { class: "legend" }, legend),
      chart, read);
  };

  const card = (run, index, runs) => {
    const box = html("input", { type: "checkbox", id: `run-${index}`, checked: !hidden.has(run.name) });
    box.addEventListener("change", () => { if (box.checked) hidden.delete(run.name); else hidden.add(run.name); show(shownData); });
    const facts = [
      `step ${run.step}${run.total ? ` of ${run.total}` : ""}`,
      `epoch ${run.epoch.toFixed(2)}`,
      run.state === "running" && run.rate ? `${short(run.rate)} images/s` : null,
      run.left !== null ? `${duration(run.left)} left` : null,
      run.best_step !== null ? `best at step ${run.best_step}` : null,
    ].filter(Boolean);
    return html("div", { class: "card", style: runs.length > 1 ? `border-left-color:${colour(index)}` : "" },
      html("span", { class: `state ${run.state}` }, run.state),
      html("label", { for: `run-${index}` }, runs.length > 1 ? box : null, " ", run.name),
      html("progress", { max: run.total || 1, value: Math.min(run.step, run.total || 1) }),
      html("p", { class: "soft" }, run.state === "waiting" ? "There is no run in this folder yet." : facts.join(" · ")));
  };

  // A table whose rows a click on a heading sorts.
  const table = (heads, rows) => {
    const body = html("tbody");
    const number = (text) => (text === null || text === undefined ? NaN : Number.parseFloat(text));
    const fill = () => body.replaceChildren(...rows.map((row) => html("tr", {}, row.map((cell, i) => html("td", { title: i === 0 ? cell : undefined, class: i > 0 && !Number.isNaN(number(cell)) ? "n" : undefined }, cell ?? "–")))));
    let sorted = null;
    const head = heads.map((name, i) => {
      const cell = html("th", { class: i > 0 && rows.some((row) => !Number.isNaN(number(row[i]))) ? "n" : undefined, scope: "col", title: "Sort" }, name);
      cell.style.cursor = "pointer";
      cell.addEventListener("click", () => {
        const sign = sorted === i ? -1 : 1;
        rows.sort((a, b) => sign * (number(a[i]) - number(b[i]) || String(a[i]).localeCompare(String(b[i]))));
        sorted = sign === 1 ? i : null;
        fill();
      });
      return cell;
    });
    fill();
    return html("div", { class: "wide" }, html("table", {}, html("thead", {}, html("tr", {}, head)), body));
  };

  const results = (runs) => {
    if (runs.every((run) => run.results.length === 0)) return [];
    const title = html("h2", { id: "results" }, "Results of validations");
    if (runs.length === 1) {
      const [run] = runs;
      return [title, table(["", `best (step ${run.best_step})`, `last (step ${run.last_step})`], run.results)];
    }
    runs = runs.filter((run) => run.results.length > 0);
    const labels = [...new Set(runs.flatMap((run) => run.results.map((row) => row[0])))];
    const at = (column) => runs.map((run) => [run.name, ...labels.map((label) => (run.results.find((row) => row[0] === label) || [])[column])]);
    const same = runs.every((run) => run.best_step === run.last_step);
    return [title,
      html("p", { class: "soft" }, same ? "The last validation of every run is its best." : "At the best validation of each run:"),
      table(["run", ...labels], at(1)),
      ...(same ? [] : [html("p", { class: "soft" }, "At the last validation:"), table(["run", ...labels], at(2))])];
  };

  const differences = (data) => {
    if (data.runs.length < 2) return [];
    const title = html("h2", { id: "differences" }, "Settings that differ");
    if (data.differences.length === 0) return [title, html("p", {}, "All settings are equal.")];
    const rows = data.runs.map((run, i) => [run.name, ...data.differences.map(([, values]) => values[i])]).filter((_, i) => data.runs[i].config !== "");
    return [title, table(["run", ...data.differences.map(([key]) => key)], rows)];
  };

  const picture = (item) => {
    if (!images.has(item.src)) images.set(item.src, html("img", { src: item.src, alt: item.title, title: item.file, loading: "lazy" }));
    return html("figure", {}, images.get(item.src), html("figcaption", {}, `${item.title} (${item.file}, ${item.date})`));
  };

  const details = (run, index, runs) => {
    if (run.state === "waiting") return [];
    const config = html("details", { id: `config-${index}` }, html("summary", {}, "Configuration"), html("pre", {}, run.config));
    return [
      html("h2", { id: `details-${index}` }, run.name),
      runs.length > 1 ? html("p", { class: "soft" }, run.facts.map(([name, value]) => `${name}: ${value}`).join(" · ")) : null,
      html("div", { class: "pictures" }, run.pictures.map(picture)),
      config].filter(Boolean);
  };

  let shownData = null;
  const show = (data) => {
    shownData = data;
    const { runs } = data;
    facts.replaceChildren(...(runs.length === 1 ? runs[0].facts : data.facts).map(([name, value]) => html("span", {}, `${name}: ${value}`)));
    const open = new Set([...document.querySelectorAll("details[open]")].map((each) => each.id));
    const focused = document.activeElement && document.activeElement.id;
    const holders = data.panels.map(() => html("div", { class: "chart" }));
    const found = results(runs);
    const links = [["charts", "Charts"], ...(found.length > 0 ? [["results", "Results"]] : []), ...(runs.length > 1 ? [["differences", "Settings that differ"]] : []), ...runs.map((run, i) => [`details-${i}`, run.name]).filter((_, i) => runs[i].state !== "waiting"), ["words", "Words"]];
    page.replaceChildren(
      html("nav", {}, links.map(([id, name]) => html("a", { href: `#${id}` }, name))),
      html("div", { class: "cards" }, runs.map(card)),
      html("h2", { id: "charts" }, "Charts"),
      data.panels.length ? html("div", { class: "charts" }, holders) : html("p", { class: "soft" }, "Nothing is logged yet."),
      ...found, ...differences(data), ...runs.flatMap(details));
    for (const each of page.querySelectorAll("details")) each.open = open.has(each.id);
    data.panels.forEach((panel, i) => draw(panel, runs, holders[i]));
    if (focused) document.getElementById(focused)?.focus();
  };

  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth !== width && shownData) { width = window.innerWidth; show(shownData); }
  });

  const embedded = document.getElementById("data");
  if (embedded) {
    show(JSON.parse(embedded.textContent));
    return;
  }
  let version = "";
  const poll = async () => {
    let data = null;
    try {
      const answer = await fetch(`data.json?have=${version}`, { cache: "no-store" });
      if (answer.status === 200) {
        data = await answer.json();
        version = data.version;
      } else if (answer.status !== 204) throw new Error(answer.statusText);
      status.textContent = "Live: the page follows the runs.";
    } catch {
      status.textContent = "csae watch does not answer; the page shows the last state and keeps trying.";
    }
    setTimeout(poll, document.hidden ? 10000 : 2000);
    if (data === null) return;
    // A selection would be lost.
    if (String(window.getSelection()) === "") show(data);
    else version = "";
  };
  poll();
})();
