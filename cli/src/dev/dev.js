// Added to pages by `wharf dev`: loads them again when the app has changed, and
// shows what went wrong until it is mended.
(() => {
  const generation = Number(document.currentScript.dataset.generation);
  const shown = document.getElementById("wharf-report");
  let overlay;

  function element(name, style, text) {
    const made = document.createElement(name);
    made.style.cssText = style;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function show(report) {
    overlay?.remove();
    overlay = element("div", "all:initial;position:fixed;inset:0;z-index:2147483647;overflow:auto;background:#1b1b1f;color:#eee;padding:2rem;font:14px/1.5 ui-monospace,monospace;white-space:pre-wrap");
    overlay.id = "wharf-overlay";
    overlay.setAttribute("role", "alert");
    overlay.append(element("h1", "all:unset;display:block;font:bold 20px sans-serif;color:#ff7b72;margin-bottom:1rem", report.title));
    for (const place of report.places) {
      overlay.append(element("div", "display:block;color:#79c0ff;margin-top:1rem", `${place.file}:${place.line}`));
      const code = element("div", "display:block;background:#26262c;padding:.5rem 1rem;border-radius:6px;white-space:pre;overflow:auto");
      for (const [number, text] of place.code) {
        const meant = number === place.line;
        code.append(element("div", `display:block;${meant ? "background:#5a1e22" : "color:#aaa"}`, `${meant ? ">" : " "} ${String(number).padStart(4)} │ ${text}`));
      }
      overlay.append(code);
    }
    overlay.append(element("div", "display:block;margin-top:1.5rem", report.text));
    (document.body ?? document.documentElement).append(overlay);
  }

  if (shown) show(JSON.parse(shown.textContent));
  const events = new EventSource("/.wharf/dev/events");
  events.onmessage = ({ data }) => {
    const now = JSON.parse(data);
    if (now.report && !shown) show(now.report);
    else if (now.generation !== generation) location.reload();
  };
  events.addEventListener("failure", ({ data }) => show(JSON.parse(data)));
})();
