"use strict";
(() => {
  const plots = JSON.parse(document.getElementById("plots").textContent);
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const font = () => ({ family: getComputedStyle(document.documentElement).fontFamily, size: 13, color: color("ink") });
  const series = ["main", "accent", "good", "bad", "muted"];

  const paint = (trace, number) => {
    const copy = structuredClone(trace);
    if (copy.type === "bar") {
      copy.marker = { color: trace.marker.tones.map(color) };
      copy.textfont = { color: color("soft") };
    } else if (copy.type === "heatmap") {
      copy.colorscale = [[0, color("heat-low")], [1, color("heat-high")]];
    } else {
      const tone = copy.type === "box" ? "main" : series[number % series.length];
      copy.line = { ...copy.line, color: color(trace.tone ?? tone) };
      copy.fillcolor = copy.line.color + "33";
    }
    return copy;
  };

  const axis = (given) => ({
    type: "linear", fixedrange: true, zeroline: false, showline: false, ticks: "", automargin: true,
    gridcolor: color("line"), showgrid: !given.tickvals, ...given,
  });

  const draw = () => plots.forEach((plot, number) => {
    const layout = {
      ...plot.layout, autosize: true, font: font(), margin: plot.layout.margin ?? { l: 8, r: 8, t: 8, b: 8 },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", dragmode: false,
      legend: { orientation: "h" },
      hoverlabel: { bgcolor: color("card"), bordercolor: color("line"), font: font(), align: "left" },
      xaxis: axis(plot.layout.xaxis), yaxis: axis(plot.layout.yaxis),
    };
    const options = { responsive: true, displaylogo: false, displayModeBar: false };
    Plotly.react(`plot-${number}`, plot.data.map(paint), layout, options);
  });

  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  matchMedia("print").addEventListener("change", draw);
})();
