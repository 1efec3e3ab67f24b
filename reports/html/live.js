"use strict";
// The live page: takes the main part anew every second, and keeps what one has zoomed to.
(() => {
  const state = document.getElementById("state");
  const charts = () => [...document.querySelectorAll("svg.timeline")];
  const opened = () => [...document.querySelectorAll("main details")];
  const replace = (text) => {
    const fresh = new DOMParser().parseFromString(text, "text/html").querySelector("main");
    if (!fresh) return;
    const zoomed = charts().map((chart) => chart.zoomed);
    const open = opened().map((details) => details.open);
    document.querySelector("main").replaceWith(fresh);
    window.begin(fresh);
    opened().forEach((details, number) => { details.open = open[number] || details.open; });
    charts().forEach((chart, number) => { if (zoomed[number]) window.zoomChart(chart, ...zoomed[number]); });
  };
  const look = async () => {
    try {
      const answer = await fetch("main", { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.statusText);
      replace(await answer.text());
      state.textContent = answer.headers.get("X-Run-State") === "over" ? "The run is over." : "Live";
      if (state.textContent !== "Live") return;
    } catch (error) {
      state.textContent = "The run is over, or its page cannot be reached: this is the last that was seen.";
      return;
    }
    setTimeout(look, 1000);
  };
  setTimeout(look, 1000);
})();
