// What the theme and the widget player leave out for people who use a keyboard or a screen reader.

// A slider has its label beside it, but its handle, which takes the focus, has no name.
function nameSliders() {
  for (const handle of document.querySelectorAll(".noUi-handle:not([aria-label])")) {
    const label = handle.closest(".widget-slider, .jupyter-widgets")?.querySelector(".widget-label");
    handle.setAttribute("aria-label", label?.textContent.trim() || "slider");
  }
}

// The player gives a box its name as a tip, which appears only under a pointer: a name for everybody.
function nameBoxes() {
  for (const box of document.querySelectorAll(".jupyter-widgets :is(textarea, input, select)[title]")) {
    if (!box.hasAttribute("aria-label")) box.setAttribute("aria-label", box.title);
    box.removeAttribute("title");
  }
}

// What opens a group of the menu is an arrow without a name.
function nameGroups() {
  for (const arrow of document.querySelectorAll(".bd-sidebar-primary li.has-children > details > summary"))
    arrow.setAttribute("aria-label", `what is in: ${arrow.closest("li").querySelector("a").textContent.trim()}`);
}

// A name too long for the contents at the side breaks before a capital letter or after a line.
function breakNames() {
  for (const name of document.querySelectorAll(".bd-sidebar-secondary code .pre")) {
    const parts = name.textContent.split(/(?<=[a-z])(?=[A-Z])|(?<=_)/);
    name.replaceChildren(...parts.flatMap((part, i) => (i ? [document.createElement("wbr"), part] : [part])));
  }
}

// A box that scrolls must be reachable by the keyboard.
function focusScrolling() {
  for (const box of document.querySelectorAll("div.cell_output, div.math, pre, .pst-scrollable-table-container")) {
    if (box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1) box.tabIndex = 0;
    else if (box.tabIndex === 0) box.removeAttribute("tabindex");
  }
}

// Where this script lies, so that others can be fetched when a page needs them.
const STATIC = document.currentScript.src.replace(/[^/]*$/, "");

function fetchScript(src, more = {}) {
  if (document.querySelector(`script[src="${src}"]`)) return;
  document.head.append(Object.assign(document.createElement("script"), { src, ...more }));
}

// Formulas stand on the page as TeX, between \\( and \\) or \\[ and \\].
function drawFormulas() {
  if (!window.katex) return;
  document.head.append(Object.assign(document.createElement("link"), { rel: "stylesheet", href: `${STATIC}lib/katex.min.css` }));
  for (const place of document.querySelectorAll(".math")) {
    const displayMode = place.tagName === "DIV";
    const tex = [...place.childNodes].filter(node => node.nodeType === Node.TEXT_NODE).map(node => node.data).join("");
    const target = displayMode ? place.appendChild(document.createElement("span")) : place;
    for (const node of [...place.childNodes]) if (node.nodeType === Node.TEXT_NODE) node.remove();
    katex.render(tex.trim().replace(/^\\[([]|\\[)\]]$/g, ""), target, { displayMode, throwOnError: false });
  }
}

// The player of widgets weighs more than a page: it is fetched when the first widget comes near.
function playWidgets() {
  const views = [...document.querySelectorAll("script[type='application/vnd.jupyter.widget-view+json']")];
  if (!views.length) return;
  const watcher = new IntersectionObserver(entries => {
    if (!entries.some(entry => entry.isIntersecting)) return;
    watcher.disconnect();
    // the player draws when the page has loaded; to one that comes later that is said once more
    const onload = () => document.readyState === "complete" && window.dispatchEvent(new Event("load"));
    fetchScript(`${STATIC}lib/embed.js`, { onload });
  }, { rootMargin: "800px" });
  views.forEach(view => watcher.observe(view.parentElement));
}

// So is the index of the search, when somebody turns to the search.
function searchWhenAsked() {
  const ask = () => fetchScript(STATIC.replace(/_static\/$/, "searchindex.js"));
  document.querySelectorAll(".bd-search input, .search-button__button").forEach(each => each.addEventListener("focus", ask));
  document.querySelectorAll(".search-button__button").forEach(each => each.addEventListener("click", ask));
  document.addEventListener("keydown", event => { if ((event.ctrlKey || event.metaKey) && /^k$/i.test(event.key)) ask(); });
}

// Which lessons one has done is kept in this browser, and nowhere else.
const DONE = "coursekit-done";
const lessonOf = href => (href.match(/(?:^|\/)(\d\d_\w+)\.html/) || [])[1];

function lessonsDone() {
  try { return new Set(JSON.parse(localStorage.getItem(DONE) || "[]")); } catch { return new Set(); }
}

function showDone() {
  const done = lessonsDone();
  for (const link of document.querySelectorAll(".bd-sidebar-primary a, a.card-of-lesson")) {
    const mark = link.querySelector("strong") || link;
    mark.classList.toggle("is-done", done.has(lessonOf(link.href)));
  }
}

function askWhetherDone() {
  const here = lessonOf(location.pathname);
  const article = document.querySelector(".bd-article");
  if (!here || !article) return;
  const button = article.appendChild(Object.assign(document.createElement("button"), { className: "done-button" }));
  const say = () => {
    const done = lessonsDone().has(here);
    button.textContent = done ? "Done ✓ (press to take it back)" : "Mark this lesson as done";
    button.setAttribute("aria-pressed", done);
  };
  button.addEventListener("click", () => {
    const done = lessonsDone();
    if (!done.delete(here)) done.add(here);
    try { localStorage.setItem(DONE, JSON.stringify([...done])); } catch { /* a private window keeps nothing */ }
    say();
    showDone();
  });
  say();
}

// Lists of claims and of terms: a field that keeps what holds every word typed, and a choice of one part (a lesson).
function addFilter(box) {
  const lists = [...document.querySelectorAll("ul.filtered")];
  const sections = [...new Set(lists.map(list => list.closest("section")))];
  if (!lists.length) return;
  const heading = section => section.querySelector("h2").firstChild.textContent.trim();
  const named = sections.map(section => `<option>${heading(section).replace(/</g, "&lt;")}</option>`).join("");
  const choice = `<label>Lesson <select><option>all of them</option>${named}</select></label>`;
  box.innerHTML = `<label>Show ${box.dataset.what} with the words <input type="search" autocomplete="off"></label>`
    + (box.dataset.what === "statements" ? choice : "") + `<output></output>`;
  const [words, lesson] = [box.querySelector("input"), box.querySelector("select")];
  const show = () => {
    const wanted = words.value.toLowerCase().split(/\s+/);
    let count = 0;
    sections.forEach((section, i) => {
      let left = 0;
      const chosen = !lesson || !lesson.selectedIndex || lesson.selectedIndex === i + 1;
      for (const item of section.querySelectorAll("ul.filtered > li")) {
        item.hidden = !chosen || !wanted.every(word => item.textContent.toLowerCase().includes(word));
        left += !item.hidden;
      }
      section.hidden = !left;
      count += left;
    });
    box.querySelector("output").textContent = `${count} ${box.dataset.what}`;
  };
  box.addEventListener("input", show);
  window.addEventListener("hashchange", () => {  // a link may lead to what is hidden
    words.value = "";
    if (lesson) lesson.selectedIndex = 0;
    show();
    document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
  });
}

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".filter-box").forEach(addFilter);
  askWhetherDone();
  showDone();
  drawFormulas();
  playWidgets();
  if (!location.pathname.endsWith("/search.html")) searchWhenAsked();
  nameGroups();
  breakNames();
  new MutationObserver(() => { nameSliders(); nameBoxes(); }).observe(document.body, { childList: true, subtree: true });
  new ResizeObserver(focusScrolling).observe(document.body);
  document.addEventListener("toggle", focusScrolling, true);
});
