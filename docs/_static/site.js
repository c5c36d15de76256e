// What the theme and the widget player leave out for people who use a keyboard or a screen reader.

// A slider has its label beside it, but its handle, which takes the focus, has no name.
function nameSliders() {
  for (const handle of document.querySelectorAll(".noUi-handle:not([aria-label])")) {
    const label = handle.closest(".widget-slider, .jupyter-widgets")?.querySelector(".widget-label");
    handle.setAttribute("aria-label", label?.textContent.trim() || "slider");
  }
}

// What opens a group of the menu is an arrow without a name.
function nameGroups() {
  for (const arrow of document.querySelectorAll(".bd-sidebar-primary li.has-children > details > summary"))
    arrow.setAttribute("aria-label", `what is in: ${arrow.closest("li").querySelector("a").textContent.trim()}`);
}

// A box that scrolls must be reachable by the keyboard.
function focusScrolling() {
  for (const box of document.querySelectorAll("div.cell_output, mjx-container[display='true'], pre, .pst-scrollable-table-container")) {
    if (box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1) box.tabIndex = 0;
    else if (box.tabIndex === 0) box.removeAttribute("tabindex");
  }
}

// The widget player speaks to MathJax 2 when a label may hold maths, and stumbles over MathJax 3: answer in its place.
function answerForMathJax2() {
  if (!window.MathJax?.typesetPromise) return;
  window.MathJax.Hub = { Queue: ([, , element]) => MathJax.startup.promise.then(() => MathJax.typesetPromise([element])) };
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
  answerForMathJax2();
  nameGroups();
  new MutationObserver(nameSliders).observe(document.body, { childList: true, subtree: true });
  new ResizeObserver(focusScrolling).observe(document.body);
  document.addEventListener("toggle", focusScrolling, true);
});
