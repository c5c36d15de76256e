// What the theme and the widget player leave out for people who use a keyboard or a screen reader.

// A slider has its label beside it, but its handle, which takes the focus, has no name.
function nameSliders() {
  for (const handle of document.querySelectorAll(".noUi-handle:not([aria-label])")) {
    const label = handle.closest(".widget-slider, .jupyter-widgets")?.querySelector(".widget-label");
    handle.setAttribute("aria-label", label?.textContent.trim() || "slider");
  }
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

document.addEventListener("DOMContentLoaded", () => {
  answerForMathJax2();
  new MutationObserver(nameSliders).observe(document.body, { childList: true, subtree: true });
  new ResizeObserver(focusScrolling).observe(document.body);
  document.addEventListener("toggle", focusScrolling, true);
});
