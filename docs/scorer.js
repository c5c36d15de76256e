// What the search puts first: the box that explains a term, then a page whose title has the word, then one that
// mentions it; a lesson before the library. See search_terms.py for the boxes.
var Scorer = {
  score: ([docname, , anchor, , score, , kind]) =>
    score + (/^\d\d_/.test(docname) && (!anchor || kind === "index") ? 8 : 0),
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 5, 1: 0, 2: -5 },
  objPrioDefault: 0,
  title: 25,
  partialTitle: 12,
  term: 5,
  partialTerm: 2,
};
