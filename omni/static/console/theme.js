// Before anything is painted: light or dark, as chosen here or by the system.
(function () {
  var chosen = null;
  try { chosen = localStorage.getItem("omni-theme"); } catch (e) { /* no storage: the system decides */ }
  var dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.classList.toggle("dark", dark);
  document.documentElement.classList.add("js");
})();
