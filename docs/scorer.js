// What the search puts first: a page whose title has the word before one that mentions it, a lesson before the library.
var Scorer = {
  score: ([docname, , anchor, , score]) => score + (/^\d\d_/.test(docname) && !anchor ? 8 : 0),
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 5, 1: 0, 2: -5 },
  objPrioDefault: 0,
  title: 25,
  partialTitle: 12,
  term: 5,
  partialTerm: 2,
};
