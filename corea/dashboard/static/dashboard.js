// Niceties only: every page works without this file.
const REFRESH_MS = 30_000;

// A choice is applied at once; the button stays for those who have no script.
document.documentElement.classList.add("scripted");
document.addEventListener("change", (event) => {
  const form = event.target.closest("form.filters");
  if (!form) return;
  // What is not chosen need not be in the address.
  for (const field of form.elements) field.disabled = field.name !== "" && field.value === "";
  form.requestSubmit();
});
// Back in the browser shows the page as it was left, with fields disabled.
addEventListener("pageshow", () => {
  for (const field of document.querySelectorAll("form.filters [name]")) field.disabled = false;
});

const main = document.querySelector("main[data-live]");
const place = document.getElementById("live");
if (main && place) {
  const box = Object.assign(document.createElement("input"), { type: "checkbox", id: "live-on", checked: true });
  const label = Object.assign(document.createElement("label"), { htmlFor: "live-on", textContent: "Live" });
  const status = Object.assign(document.createElement("span"), { className: "unseen", role: "status" });
  label.title = "Loads the figures again every 30 seconds";
  place.append(box, label, status);
  box.addEventListener("change", () => (status.textContent = box.checked ? "Live" : "Paused"));

  const refresh = async () => {
    if (!box.checked || document.hidden || main.contains(document.activeElement)) return;
    const answer = await fetch(location.href, { headers: { accept: "text/html" } }).catch(() => null);
    if (!answer) return;
    // Signed out meanwhile: the page says so by itself.
    if (answer.redirected) return location.reload();
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    const next = fresh.querySelector("main");
    if (!next || main.contains(document.activeElement)) return;
    for (const details of main.querySelectorAll("details[open][id]")) {
      next.querySelector(`#${CSS.escape(details.id)}`)?.setAttribute("open", "");
    }
    main.replaceChildren(...next.childNodes);
    document.querySelector("footer")?.replaceWith(fresh.querySelector("footer"));
  };
  setInterval(refresh, REFRESH_MS);
}
